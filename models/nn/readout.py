"""From the encoder's layers to the vector: what a frame holds, how it is pooled and projected.

A layer's output that is thrown away is knowledge thrown away: the MLP's output, the last
convolution's and the log-mel bands know different things (arXiv 2205.08138 fuses layers for the
same reason). Letters: `B` batch, `F` mel bands, `T` frames of features, `P` pooled values, `D`
embedding dim.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modelfile import Statistic
from models.nn.encoder import ConvEncoder
from models.nn.frontend import N_MELS
from models.nn.pooling import StatisticsPool


@dataclass(frozen=True)
class Projection:
    """An affine map of pooled vectors: (P,) center and (P, D) matrix.

    Attributes:
        center: taken off a pooled vector.
        matrix: what the rest is multiplied by; its columns are in order of what they are worth.
        unit_length: whether the product is divided by its length.
        form: the name of the method that measured it.
        settings: of the method.
        segments: it was measured on.
        seconds: their lengths.
    """

    center: Tensor
    matrix: Tensor
    unit_length: bool = True
    form: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    segments: int = 0
    seconds: tuple[float, ...] = ()


class Readout(nn.Module):
    """Max + mean of the encoder's features: BYOL-A's own vector."""

    def __init__(self, encoder: ConvEncoder) -> None:
        super().__init__()
        self.frame_dim = encoder.embed_dim
        self.statistics: tuple[Statistic, ...] = ()
        self.projection: Projection | None = None
        self.pool: nn.Module = StatisticsPool(
            [Statistic(kind="max+mean", layer="features", first=0, n=self.frame_dim)]
        )

    @property
    def embed_dim(self) -> int:
        """Values of a vector."""
        return self.frame_dim

    def frames(self, encoder: ConvEncoder, log_mel: Tensor, n_mel_frames: Tensor | None) -> Tensor:
        """Normalised log-mels (B, F, T) -> what is pooled, a row a frame of features."""
        features: Tensor = encoder(log_mel[:, None], n_mel_frames)
        return features

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """Frames and the valid ones of each row (B,), all of them if None -> vectors (B, D)."""
        pooled: Tensor = self.pool(frames, n_frames)
        return pooled


class LayeredReadout(Readout):
    """Statistics of three layers, and perhaps a projection of them.

    Max + mean of the MLP's output, mean and maximum of the last convolution's, mean, deviation and
    maximum of the log-mel bands. A frame of features stands for `time_reduction` log-mel frames;
    its row holds their mean, variance and maximum, so that all of it merges exactly across tiles.
    """

    center: Tensor
    matrix: Tensor

    def __init__(self, encoder: ConvEncoder, projection: Projection | None = None) -> None:
        super().__init__(encoder)
        n_mlp, n_conv = encoder.mlp_dim, encoder.local_dim
        bands = n_mlp + n_conv
        self.frame_dim = bands + 3 * N_MELS
        self.statistics = (
            Statistic(kind="max+mean", layer="mlp", first=0, n=n_mlp),
            Statistic(kind="mean", layer="convolution", first=n_mlp, n=n_conv),
            Statistic(kind="max", layer="convolution", first=n_mlp, n=n_conv),
            Statistic(kind="mean", layer="log-mel", first=bands, n=N_MELS),
            Statistic(
                kind="deviation", layer="log-mel", first=bands, n=N_MELS, within=bands + N_MELS
            ),
            Statistic(kind="max", layer="log-mel", first=bands + 2 * N_MELS, n=N_MELS),
        )
        self.pool = StatisticsPool(self.statistics)
        self.projection = projection
        if projection is not None:
            # The file holds the matrix in half precision: half the size, and the same vectors
            self.register_buffer("center", projection.center.float())
            self.register_buffer("matrix", projection.matrix.half().float())

    @property
    def embed_dim(self) -> int:
        """Values of a vector."""
        return self.matrix.shape[1] if self.projection else sum(s.n for s in self.statistics)

    def frames(self, encoder: ConvEncoder, log_mel: Tensor, n_mel_frames: Tensor | None) -> Tensor:
        """Normalised log-mels (B, F, T) -> a row a frame: MLP, convolution, log-mel bands."""
        local, features = encoder.layers(log_mel[:, None], n_mel_frames)
        bands = band_statistics(log_mel, n_mel_frames, encoder.time_reduction, features.shape[1])
        return torch.cat([features, local, bands], dim=-1)

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """Frames and the valid ones of each row (B,), all of them if None -> vectors (B, D)."""
        pooled: Tensor = self.pool(frames, n_frames)
        if self.projection is None:
            return pooled
        embedding = torch.matmul(pooled - self.center, self.matrix)
        return F.normalize(embedding, dim=1) if self.projection.unit_length else embedding


def band_statistics(
    log_mel: Tensor, n_mel_frames: Tensor | None, time_reduction: int, n_frames: int
) -> Tensor:
    """Mean, variance and maximum of each band over a frame's own log-mel frames.

    (B, F, T) -> (B, n_frames, 3 F). The last frame of a clip may have fewer log-mel frames than
    the others; rows beyond it hold no meaning.
    """
    padded = F.pad(log_mel, (0, time_reduction - 1))[:, :, : n_frames * time_reduction]
    parts = padded.reshape(*log_mel.shape[:2], n_frames, time_reduction)  # (B, F, T / r, r)
    n_valid = log_mel.shape[2] if n_mel_frames is None else n_mel_frames[:, None]
    place = torch.arange(n_frames * time_reduction, device=log_mel.device)
    inside = (place < n_valid).reshape(-1, 1, n_frames, time_reduction)
    count = inside.sum(-1).clamp(min=1)
    mean = (parts * inside).sum(-1) / count
    centred = (parts - mean[..., None]) * inside
    variance = centred.square().sum(-1) / count
    lowest = torch.finfo(parts.dtype).min
    maximum = parts.masked_fill(~inside, lowest).amax(-1)
    return torch.cat([mean, variance, maximum], dim=1).transpose(1, 2)
