"""From the encoder's layers to the vector: what a frame holds, how it is pooled and projected.

A layer's output that is thrown away is knowledge thrown away: the MLP's output, the last
convolution's and the log-mel bands know different things (arXiv 2205.08138 fuses layers for the
same reason). All of these are pooled as if frames had no order; products of frames some steps apart
keep some of it. Of their means the signed square root is taken, as of bilinear features (arXiv
1504.07889). Letters: `B` batch, `F` mel bands, `T` frames of features, `N` values of a layer, `A`
axes, `P` pooled values, `D` embedding dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.card import Statistic
from models.nn.encoder import ConvEncoder
from models.nn.frontend import N_MELS
from models.nn.pooling import StatisticsPool

LAGS = (0, 1, 2, 4)
"""Frames of features between the two of which products are taken."""


@dataclass(frozen=True)
class Axes:
    """The first principal axes of a layer's frames: coordinates are `(frame - center) @ matrix`.

    Attributes:
        center: the mean frame, (N,).
        matrix: (N, A); coordinates have a variance of 1.
    """

    center: Tensor
    matrix: Tensor


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
        self.context_frames = 0
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
    maximum of the log-mel bands; where axes are given, the autocovariances of the convolution's
    output and of the bands along them. A frame of features stands for `time_reduction` log-mel
    frames; its row holds their mean, variance and maximum, so that all of it merges exactly across
    tiles.
    """

    center: Tensor
    matrix: Tensor

    def __init__(
        self,
        encoder: ConvEncoder,
        projection: Projection | None = None,
        axes: Mapping[str, Axes] | None = None,
    ) -> None:
        """`axes` of the layers "convolution" and "log-mel"; None: no autocovariances."""
        super().__init__(encoder)
        n_mlp, n_conv = encoder.mlp_dim, encoder.local_dim
        bands = n_mlp + n_conv
        products = bands + 3 * N_MELS
        self.frame_dim = products
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
        self.products = LaggedProducts(axes) if axes else None
        if self.products is not None:
            n = len(self.products.first)
            self.frame_dim += n
            self.context_frames = max(LAGS)
            self.statistics += (
                Statistic(kind="signed-root", layer="autocovariance", first=products, n=n),
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
        """Normalised log-mels (B, F, T) -> a row a frame.

        MLP, convolution, log-mel bands, and products along axes if there are some.
        """
        local, features = encoder.layers(log_mel[:, None], n_mel_frames)
        bands = band_statistics(log_mel, n_mel_frames, encoder.time_reduction, features.shape[1])
        parts = [features, local, bands]
        if self.products is not None:
            parts.append(self.products({"convolution": local, "log-mel": bands[..., :N_MELS]}))
        return torch.cat(parts, dim=-1)

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """Frames and the valid ones of each row (B,), all of them if None -> vectors (B, D)."""
        pooled: Tensor = self.pool(frames, n_frames)
        if self.projection is None:
            return pooled
        embedding = torch.matmul(pooled - self.center, self.matrix)
        return F.normalize(embedding, dim=1) if self.projection.unit_length else embedding


class Coordinates(nn.Module):
    """A layer's frames along axes: (B, T, N) -> (B, A, T)."""

    center: Tensor
    matrix: Tensor

    def __init__(self, axes: Axes) -> None:
        super().__init__()
        self.register_buffer("center", axes.center.float()[:, None])
        self.register_buffer("matrix", axes.matrix.float().T.contiguous())  # (A, N)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames of the layer, (B, T, N)."""
        # The matrix on the left, where it stays in float32 when others are put into eight bits
        return torch.matmul(self.matrix, frames.transpose(1, 2) - self.center)


class LaggedProducts(nn.ModuleDict):
    """Layers' frames -> products along axes, a frame's and those of frames before: (B, T, P).

    Their means over time are the autocovariance matrices of each layer, of each lag in `LAGS`: they
    keep some of the order of sounds, which other statistics forget. With lag 0 each pair is there
    once. Before the first frame there are zeros.
    """

    first: Tensor
    second: Tensor

    def __init__(self, axes: Mapping[str, Axes]) -> None:
        super().__init__({layer: Coordinates(of_layer) for layer, of_layer in axes.items()})
        sizes = [of_layer.matrix.shape[1] for of_layer in axes.values()]
        first, second = [], []
        for index, n in enumerate(sizes):
            begin = sum(sizes[:index])  # the layer's coordinates in those of all layers
            for number, lag in enumerate(LAGS):
                pairs = torch.triu_indices(n, n) if lag == 0 else torch.ones(n, n).nonzero().T
                first.append(begin + pairs[0])
                second.append(number * sum(sizes) + begin + pairs[1])
        self.register_buffer("first", torch.cat(first), persistent=False)
        self.register_buffer("second", torch.cat(second), persistent=False)

    def forward(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Frames of the layers, each (B, T, N)."""
        now = torch.cat([along(layers[layer]) for layer, along in self.items()], dim=1)  # (B, A, T)
        longest, n_frames = max(LAGS), now.shape[2]
        padded = F.pad(now, (longest, 0))
        lagged = torch.cat([padded.narrow(2, longest - lag, n_frames) for lag in LAGS], dim=1)
        return (now[:, self.first] * lagged[:, self.second]).transpose(1, 2)


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
