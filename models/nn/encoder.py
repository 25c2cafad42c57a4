"""The encoders of BYOL-A: AudioNTT2020 (v1, arXiv 2103.06695), AudioNTT2022 (v2, arXiv 2204.07402).

`state_dict` keys, shapes and flatten order are those of the published checkpoints. Letters: `B`
batch, `F` mel bands, `T` log-mel frames, `C` channels, `D` embedding dim.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.nn.frontend import HOP_LENGTH, N_FFT, N_MELS
from models.nn.norm import Norm, StandardizedConv2d, of_feature_map

N_CHANNELS = 64
DROPOUT = 0.3


class ConvEncoder(nn.Module):
    """What both share: blocks of convolution, norm, max-pooling, ReLU, and an MLP a frame.

    The papers' norm is batch norm, with weights as they are; the others are `models.nn.norm`'s.
    Their convolutions have 64 channels; fewer are for comparisons on small machines.
    """

    n_blocks: ClassVar[int]

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        out_dim: int,
        norm: Norm,
        weight_standardization: bool,
        n_channels: int,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.n_channels = n_channels
        self.norm: Norm = norm
        self.weight_standardization = weight_standardization
        conv = StandardizedConv2d if weight_standardization else nn.Conv2d
        layers: list[nn.Module] = []
        for block in range(self.n_blocks):
            layers += [
                conv(n_channels if block else 1, n_channels, kernel_size=3, padding=1),
                of_feature_map(norm, n_channels),
                # The papers rectify first; a maximum commutes with ReLU, which then has a quarter
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(self.local_dim, hidden_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
            nn.Linear(hidden_dim, out_dim),
            nn.ReLU(inplace=True),
        )

    @property
    def time_reduction(self) -> int:
        """Log-mel frames a frame of features."""
        return 1 << self.n_blocks

    @property
    def local_dim(self) -> int:
        """Size of a frame of features before the MLP."""
        return self.n_channels * N_MELS // self.time_reduction

    @property
    def frame_hop(self) -> int:
        """Samples from one frame of features to the next."""
        return self.time_reduction * HOP_LENGTH

    @property
    def context(self) -> int:
        """Log-mel frames that a frame of features sees on either side of its own ones."""
        return self.time_reduction - 1  # a 3x3 kernel adds 1, 2, 4, ... frames a block

    @property
    def frame_offset(self) -> int:
        """First sample that frame 0 sees; negative, since that lies in the reflection."""
        return -self.context * HOP_LENGTH - N_FFT // 2

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of features sees."""
        return (self.time_reduction + 2 * self.context - 1) * HOP_LENGTH + N_FFT

    @property
    def min_samples(self) -> int:
        """Shortest clip that has a frame and can be reflected; others are zero-padded to it."""
        return max((self.time_reduction - 1) * HOP_LENGTH, N_FFT // 2 + 1)

    def n_frames(self, n_mel_frames: Tensor) -> Tensor:
        """Frames of features from `n_mel_frames` log-mel frames, same shape."""
        return n_mel_frames // self.time_reduction

    def local_features(self, x: Tensor, n_mel_frames: Tensor | None) -> Tensor:
        """Normalised log-mel (B, 1, F, T) -> (B, T / time_reduction, local_dim).

        A frame is flattened mel-major: index = mel * C + channel.
        Beyond the valid frames each convolution sees zeros, as at the end of a clip that was not
        padded.
        """
        valid = n_mel_frames
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                x = _mask_time(x, valid)
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d) and valid is not None:
                valid = valid // 2
        return x.permute(0, 3, 2, 1).flatten(2)


class AudioNTT2020(ConvEncoder):
    """Three blocks, the MLP's output is the feature, 80 ms: (B, 1, F, T) -> (B, T / 8, D)."""

    n_blocks = 3

    def __init__(
        self,
        embed_dim: int = 2048,
        *,
        norm: Norm = "batch",
        weight_standardization: bool = False,
        n_channels: int = N_CHANNELS,
    ) -> None:
        super().__init__(embed_dim, embed_dim, embed_dim, norm, weight_standardization, n_channels)

    def forward(self, x: Tensor, n_mel_frames: Tensor | None = None) -> Tensor:
        """Normalised log-mel and the valid frames of each row (all if None) -> frame features."""
        features: Tensor = self.fc(self.local_features(x, n_mel_frames))
        return features


class AudioNTT2022(ConvEncoder):
    """Two blocks, local features beside the MLP's, 40 ms: (B, 1, F, T) -> (B, T / 4, D)."""

    n_blocks = 2

    def __init__(
        self,
        embed_dim: int = 3072,
        hidden_dim: int = 2048,
        *,
        norm: Norm = "batch",
        weight_standardization: bool = False,
        n_channels: int = N_CHANNELS,
    ) -> None:
        local_dim = local_dim_v2(n_channels)
        if embed_dim <= local_dim:
            raise ValueError(f"embed_dim is {embed_dim}; AudioNTT2022 needs more than {local_dim}")
        super().__init__(
            embed_dim, hidden_dim, embed_dim - local_dim, norm, weight_standardization, n_channels
        )

    def forward(self, x: Tensor, n_mel_frames: Tensor | None = None) -> Tensor:
        """Normalised log-mel, valid frames of each row (all if None) -> features, local first."""
        local = self.local_features(x, n_mel_frames)
        return torch.cat([local, self.fc(local)], dim=-1)


def local_dim_v2(n_channels: int = N_CHANNELS) -> int:
    """Size of the local part of AudioNTT2022's features."""
    return n_channels * N_MELS >> AudioNTT2022.n_blocks


ENCODERS: dict[str, type[AudioNTT2020] | type[AudioNTT2022]] = {
    "AudioNTT2020": AudioNTT2020,
    "AudioNTT2022": AudioNTT2022,
}


def _mask_time(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero the frames of (B, C, F, T) from `valid` (B,) on."""
    if valid is None:
        return x
    inside = torch.arange(x.shape[3], device=x.device) < valid[:, None]  # (B, T)
    return x * inside[:, None, None, :].to(x.dtype)
