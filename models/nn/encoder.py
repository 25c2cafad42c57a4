"""Encoders of log-mels: those of BYOL-A, and a light one whose convolutions take strides.

AudioNTT2020 (v1, arXiv 2103.06695) and AudioNTT2022 (v2, arXiv 2204.07402): `state_dict` keys,
shapes and flatten order are those of the published checkpoints. Letters: `B` batch, `F` mel bands,
`T` log-mel frames, `C` channels, `D` embedding dim.
"""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from models.card import Card
from models.nn.frontend import HOP_LENGTH, N_FFT, N_MELS
from models.nn.norm import Norm, StandardizedConv2d, of_feature_map

N_CHANNELS = 64
LIGHT_CHANNELS = 32
DROPOUT = 0.3

Count = TypeVar("Count", int, Tensor)


class ConvEncoder(nn.Module):
    """Blocks of a 3x3 convolution, norm and ReLU that halve bands and time, then an MLP a frame.

    Frame `t` of the features stands for the `time_reduction` log-mel frames from
    `t * time_reduction` on. The papers' norm is batch norm, with weights as they are; the others
    are `models.nn.norm`'s.

    Attributes:
        embed_dim: values of a frame that `forward` gives.
        time_reduction: log-mel frames a frame of features.
        local_dim: values of a frame that the MLP reads.
        mlp_dim: values of a frame that it gives.
    """

    default_channels: ClassVar[int] = N_CHANNELS

    def __init__(
        self,
        channels: Sequence[int],
        hidden_dim: int,
        out_dim: int,
        norm: Norm,
        weight_standardization: bool,
    ) -> None:
        super().__init__()
        self.n_channels = channels[0]
        self.hidden_dim = hidden_dim
        self.embed_dim = self.mlp_dim = out_dim
        self.norm: Norm = norm
        self.weight_standardization = weight_standardization
        self.time_reduction = 1 << len(channels)
        self.local_dim = channels[-1] * N_MELS // self.time_reduction
        conv = StandardizedConv2d if weight_standardization else nn.Conv2d
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise([1, *channels]):
            layers += self._block(conv, norm, n_in, n_out)
        self.features = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(self.local_dim, hidden_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
            nn.Linear(hidden_dim, out_dim),
            nn.ReLU(inplace=True),
        )

    @abstractmethod
    def _block(self, conv: type[nn.Conv2d], norm: Norm, n_in: int, n_out: int) -> list[nn.Module]:
        """The layers of one block."""

    @abstractmethod
    def n_frames(self, n_mel_frames: Count) -> Count:
        """Frames of features from `n_mel_frames` log-mel frames."""

    @property
    @abstractmethod
    def context_after(self) -> int:
        """Log-mel frames after its own ones that a frame of features sees."""

    @property
    @abstractmethod
    def min_samples(self) -> int:
        """Shortest clip that has a frame and can be reflected; others are zero-padded to it."""

    @property
    def context_before(self) -> int:
        """Log-mel frames before its own ones that a frame of features sees."""
        return self.time_reduction - 1  # a 3x3 kernel adds 1, 2, 4, ... frames a block

    @property
    def frame_hop(self) -> int:
        """Samples from one frame of features to the next."""
        return self.time_reduction * HOP_LENGTH

    @property
    def frame_offset(self) -> int:
        """First sample that frame 0 sees; negative, since that lies in the reflection."""
        return -self.context_before * HOP_LENGTH - N_FFT // 2

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of features sees."""
        n_mel_frames = self.context_before + self.time_reduction + self.context_after
        return (n_mel_frames - 1) * HOP_LENGTH + N_FFT

    def local_features(self, x: Tensor, n_mel_frames: Tensor | None) -> Tensor:
        """Normalised log-mel (B, 1, F, T) -> what the MLP reads, (B, n_frames, local_dim).

        A frame is flattened mel-major: index = mel * C + channel.
        Beyond the valid frames each convolution sees zeros, as at the end of a clip that was not
        padded.
        """
        valid = n_mel_frames
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                x = _mask_time(x, valid)
            x = layer(x)
            if valid is not None:
                valid = _halved(layer, valid)
        return x.permute(0, 3, 2, 1).flatten(2)

    def layers(self, x: Tensor, n_mel_frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, but the local features and the MLP's output, each (B, n_frames, ...)."""
        local = self.local_features(x, n_mel_frames)
        return local, self.fc(local)

    def forward(self, x: Tensor, n_mel_frames: Tensor | None = None) -> Tensor:
        """Normalised log-mel (B, 1, F, T), valid frames of each row (all if None) -> features.

        The MLP's output: (B, n_frames, D).
        """
        return self.layers(x, n_mel_frames)[1]


class PooledConv(ConvEncoder):
    """Blocks of the papers: max-pooling halves bands and time; an odd last frame is dropped."""

    def _block(self, conv: type[nn.Conv2d], norm: Norm, n_in: int, n_out: int) -> list[nn.Module]:
        return [
            conv(n_in, n_out, kernel_size=3, padding=1),
            of_feature_map(norm, n_out),
            # The papers rectify first; a maximum commutes with ReLU, which then has a quarter
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        ]

    def n_frames(self, n_mel_frames: Count) -> Count:
        """Whole frames of features from `n_mel_frames` log-mel frames."""
        return n_mel_frames // self.time_reduction

    @property
    def context_after(self) -> int:
        """Log-mel frames after its own ones that a frame of features sees."""
        return self.time_reduction - 1

    @property
    def min_samples(self) -> int:
        """Shortest clip that has a frame and can be reflected; others are zero-padded to it."""
        return max((self.time_reduction - 1) * HOP_LENGTH, N_FFT // 2 + 1)


class AudioNTT2020(PooledConv):
    """Three blocks, the MLP's output is the feature, 80 ms: (B, 1, F, T) -> (B, T / 8, D)."""

    def __init__(
        self,
        embed_dim: int = 2048,
        hidden_dim: int | None = None,
        *,
        norm: Norm = "batch",
        weight_standardization: bool = False,
        n_channels: int = N_CHANNELS,
    ) -> None:
        """`hidden_dim` None: `embed_dim`, as in the paper."""
        channels = [n_channels] * 3
        super().__init__(channels, hidden_dim or embed_dim, embed_dim, norm, weight_standardization)


class AudioNTT2022(PooledConv):
    """Two blocks, local features beside the MLP's, 40 ms: (B, 1, F, T) -> (B, T / 4, D)."""

    def __init__(
        self,
        embed_dim: int = 3072,
        hidden_dim: int | None = None,
        *,
        norm: Norm = "batch",
        weight_standardization: bool = False,
        n_channels: int = N_CHANNELS,
    ) -> None:
        """`hidden_dim` None: 2048, as in the paper."""
        local_dim = local_dim_v2(n_channels)
        if embed_dim <= local_dim:
            raise ValueError(f"embed_dim is {embed_dim}; AudioNTT2022 needs more than {local_dim}")
        channels, out_dim = [n_channels] * 2, embed_dim - local_dim
        super().__init__(channels, hidden_dim or 2048, out_dim, norm, weight_standardization)
        self.embed_dim = embed_dim

    def forward(self, x: Tensor, n_mel_frames: Tensor | None = None) -> Tensor:
        """Normalised log-mel, valid frames of each row (all if None) -> features, local first."""
        return torch.cat(self.layers(x, n_mel_frames), dim=-1)


class StridedConv(ConvEncoder):
    """Three convolutions of stride 2, channels doubled each time, then the MLP of v1.

    (B, 1, F, T) -> (B, ceil(T / 8), D), 80 ms. Ours: a ninth of the arithmetic of v2, because no
    convolution sees the full resolution. A frame is centred on the first of its log-mel frames, so
    that the last may have fewer than eight.
    """

    default_channels: ClassVar[int] = LIGHT_CHANNELS

    def __init__(
        self,
        embed_dim: int = 512,
        hidden_dim: int | None = None,
        *,
        norm: Norm = "batch",
        weight_standardization: bool = False,
        n_channels: int = LIGHT_CHANNELS,
    ) -> None:
        """`n_channels` of the first block; `hidden_dim` None: `embed_dim`."""
        channels = [n_channels, 2 * n_channels, 4 * n_channels]
        super().__init__(channels, hidden_dim or embed_dim, embed_dim, norm, weight_standardization)

    def _block(self, conv: type[nn.Conv2d], norm: Norm, n_in: int, n_out: int) -> list[nn.Module]:
        return [
            conv(n_in, n_out, kernel_size=3, padding=1, stride=2),
            of_feature_map(norm, n_out),
            nn.ReLU(inplace=True),
        ]

    def n_frames(self, n_mel_frames: Count) -> Count:
        """Frames of features from `n_mel_frames` log-mel frames, one for those left over."""
        return (n_mel_frames + self.time_reduction - 1) // self.time_reduction

    @property
    def context_after(self) -> int:
        """Log-mel frames after its own ones that a frame of features sees."""
        return 0

    @property
    def min_samples(self) -> int:
        """Shortest clip that can be reflected; others are zero-padded to it."""
        return N_FFT // 2 + 1


def local_dim_v2(n_channels: int = N_CHANNELS) -> int:
    """Size of the local part of AudioNTT2022's features."""
    return n_channels * N_MELS // 4


ENCODERS: dict[str, type[AudioNTT2020] | type[AudioNTT2022] | type[StridedConv]] = {
    encoder.__name__: encoder for encoder in (AudioNTT2020, AudioNTT2022, StridedConv)
}


def of_card(card: Card) -> ConvEncoder:
    """The network of a model file's card, with random weights."""
    return ENCODERS[card.encoder](
        embed_dim=card.feature_dim or card.embed_dim,
        hidden_dim=card.hidden_dim,
        n_channels=card.n_channels,
        norm=card.norm,
        weight_standardization=card.weight_standardization,
    )


def _halved(layer: nn.Module, n_frames: Tensor) -> Tensor:
    """Frames behind a layer that has `n_frames` before it."""
    if isinstance(layer, nn.MaxPool2d):
        return n_frames // 2
    if isinstance(layer, nn.Conv2d) and layer.stride[1] == 2:
        return (n_frames + 1) // 2
    return n_frames


def _mask_time(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero the frames of (B, C, F, T) from `valid` (B,) on."""
    if valid is None:
        return x
    inside = torch.arange(x.shape[3], device=x.device) < valid[:, None]  # (B, T)
    return x * inside[:, None, None, :].to(x.dtype)
