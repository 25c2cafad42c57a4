"""Normalisation of an encoder and its heads: by the batch, or by each clip or frame alone.

Without batch statistics BYOL needs group or layer norm with standardised weights (arXiv 2010.10241,
2204.04545). Letters: `B` batch, `F` mel bands, `T` frames, `C` channels.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "group", "layer", "none"]
GROUP_CHANNELS = 4  # of a feature map; ours: 16 groups of the papers' 64 channels
N_GROUPS = 16  # of a head's hidden features; ours
EPS = 1e-5


class FrameNorm(nn.Module):
    """Group norm of each frame of a feature map by itself: (B, C, F, T) kept.

    Mean and deviation are over a group's channels and all mel bands of one frame; scale and shift
    belong to a channel. Group norm of images (arXiv 1803.08494) also pools over the place, which
    here is time: a frame would then depend on the whole clip, on what pads it and on where a long
    recording is cut. One group is layer norm.
    """

    def __init__(self, n_groups: int, n_channels: int) -> None:
        super().__init__()
        self.n_groups = n_groups
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, scale and shift."""
        # Each frame as an image of one column, with the channels last: torch's fastest group norm
        frames = x.permute(0, 3, 2, 1).contiguous()  # (B, T, F, C)
        columns = frames.flatten(0, 1).transpose(1, 2)[..., None]  # (B T, C, F, 1)
        columns = F.group_norm(columns, self.n_groups, self.weight, self.bias, EPS)
        frames = columns[..., 0].transpose(1, 2).reshape(frames.shape)
        return frames.transpose(1, 2).contiguous().permute(0, 3, 1, 2)  # channels last, as it came


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose filters have mean 0 and deviation 1 (arXiv 1903.10520)."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve with the standardised filters."""
        weight = standardized(self.weight)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class StandardizedLinear(nn.Linear):
    """A linear layer, each of whose outputs has weights of mean 0 and deviation 1."""

    def forward(self, input: Tensor) -> Tensor:
        """Multiply with the standardised weights."""
        return F.linear(input, standardized(self.weight), self.bias)


def standardized(weight: Tensor) -> Tensor:
    """(w - mean) / (deviation + 1e-5) over the inputs of each output, shape kept."""
    flat = weight.flatten(1)
    std, mean = torch.std_mean(flat, dim=1, keepdim=True)
    return ((flat - mean) / (std + EPS)).view_as(weight)


def of_feature_map(kind: Norm, n_channels: int) -> nn.Module:
    """A norm of (B, C, F, T)."""
    match kind:
        case "batch":
            return nn.BatchNorm2d(n_channels)
        case "group":
            return FrameNorm(n_channels // GROUP_CHANNELS, n_channels)
        case "layer":
            return FrameNorm(1, n_channels)
        case "none":
            return nn.Identity()


def of_vectors(kind: Norm, n_features: int) -> nn.Module:
    """A norm of (B, n_features)."""
    match kind:
        case "batch":
            return nn.BatchNorm1d(n_features)
        case "group":
            return nn.GroupNorm(N_GROUPS, n_features)
        case "layer":
            return nn.LayerNorm(n_features)
        case "none":
            return nn.Identity()
