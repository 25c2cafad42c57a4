"""Pooling over time: max + mean of the valid frames, as BYOL-A pools (arXiv 2103.06695, sec.

IV-A).
"""

import torch
from torch import Tensor, nn


class MaxMeanPool(nn.Module):
    """Element-wise sum of the maximum and the mean over time: (B, T, D) -> (B, D)."""

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """Frame features and the valid frames of each row (B,), all of them if None."""
        if n_frames is None:
            return frames.amax(dim=1) + frames.mean(dim=1)
        inside = torch.arange(frames.shape[1], device=frames.device) < n_frames[:, None]  # (B, T)
        lowest = torch.finfo(frames.dtype).min
        maximum = frames.masked_fill(~inside[:, :, None], lowest).amax(dim=1)
        weights = inside.to(frames.dtype) / n_frames[:, None].to(frames.dtype)
        mean = torch.matmul(weights[:, None, :], frames)[
            :, 0
        ]  # a product: one pass, no masked copy
        return maximum + mean
