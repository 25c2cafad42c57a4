"""Pooling over time: max + mean as BYOL-A pools (arXiv 2103.06695, sec.

IV-A), and the statistics of several layers. Letters: `B` batch, `T` frames, `F` values of a frame,
`D` embedding dim, `P` pooled values.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.card import Statistic


class MaxMeanPool(nn.Module):
    """Element-wise sum of the maximum and the mean over time: (B, T, D) -> (B, D)."""

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """Frame features and the valid frames of each row (B,), all of them if None."""
        return maximum(frames, n_frames) + mean(frames, n_frames)


class StatisticsPool(nn.Module):
    """The statistics of columns of the frames, one after the other: (B, T, F) -> (B, P)."""

    def __init__(self, statistics: Sequence[Statistic]) -> None:
        super().__init__()
        self.statistics = tuple(statistics)

    @property
    def pooled_dim(self) -> int:
        """Values of a pooled vector."""
        return sum(statistic.n for statistic in self.statistics)

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """Frames and the valid ones of each row (B,), all of them if None."""
        means, maxima = mean(frames, n_frames), maximum(frames, n_frames)
        parts = []
        for statistic in self.statistics:
            columns = statistic.columns
            match statistic.kind:
                case "max+mean":
                    part = maxima[:, columns] + means[:, columns]
                case "mean":
                    part = means[:, columns]
                case "max":
                    part = maxima[:, columns]
                case "deviation":  # of the means of the frames, and inside the frames
                    centred = frames[:, :, columns] - means[:, None, columns]
                    part = mean(centred.square(), n_frames) + means[:, statistic.variances]
                    part = part.clamp(min=0).sqrt()
                case "signed-root":
                    part = means[:, columns].sign() * means[:, columns].abs().sqrt()
            parts.append(part)
        return torch.cat(parts, dim=1)


def maximum(frames: Tensor, n_frames: Tensor | None) -> Tensor:
    """Of the valid frames of each row: (B, T, F) -> (B, F)."""
    if n_frames is None:
        return frames.amax(dim=1)
    lowest = torch.finfo(frames.dtype).min
    return frames.masked_fill(~_inside(frames, n_frames)[:, :, None], lowest).amax(dim=1)


def mean(frames: Tensor, n_frames: Tensor | None) -> Tensor:
    """Of the valid frames of each row: (B, T, F) -> (B, F)."""
    if n_frames is None:
        return frames.mean(dim=1)
    weights = _inside(frames, n_frames).to(frames.dtype) / n_frames[:, None].to(frames.dtype)
    # a product: one pass, no masked copy
    return torch.matmul(weights[:, None, :], frames)[:, 0]


def _inside(frames: Tensor, n_frames: Tensor) -> Tensor:
    """Which frames are valid: (B, T)."""
    return torch.arange(frames.shape[1], device=frames.device) < n_frames[:, None]
