"""Small encoders, one of each kind."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.nn.encoder import AudioNTT2020, AudioNTT2022, ConvEncoder, StridedConv
from models.nn.frontend import N_MELS
from models.nn.model import WaveformEncoder, one_pass
from models.nn.norm import FrameNorm
from models.nn.readout import Axes, LayeredReadout, Projection

N_AXES = 3  # of the layers of one of them

SMALL: dict[str, Callable[..., ConvEncoder]] = {
    "AudioNTT2020": lambda **norm: AudioNTT2020(embed_dim=32, **{"n_channels": 16, **norm}),
    "AudioNTT2022": lambda **norm: AudioNTT2022(embed_dim=1056, hidden_dim=32, **norm),
    "StridedConv": lambda **norm: StridedConv(embed_dim=32, **{"n_channels": 16, **norm}),
}


def small_network(name: str, **norm: Any) -> WaveformEncoder:
    """An encoder with random weights and random norms, as after training."""
    torch.manual_seed(0)
    encoder = SMALL[name](**norm)
    ranges = {
        "running_mean": (-1, 1),
        "running_var": (0.5, 2),
        "weight": (0.5, 1.5),
        "bias": (-0.5, 0.5),
    }
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | FrameNorm):
            for statistic, (low, high) in ranges.items():
                if hasattr(layer, statistic):
                    getattr(layer, statistic).data.uniform_(low, high)
    network = WaveformEncoder(encoder, -5.5, 5.0).eval()
    if isinstance(encoder, StridedConv):  # layers, random axes, a random projection around a sound
        sound = torch.randn(16_000) / 10
        network.readout = LayeredReadout(encoder)
        _, frames = one_pass(network, sound * torch.logspace(-6, 0, len(sound)))
        first = encoder.mlp_dim + encoder.local_dim
        axes = {
            "convolution": _axes(frames[:, encoder.mlp_dim : first]),
            "log-mel": _axes(frames[:, first : first + N_MELS]),
        }
        network.readout = LayeredReadout(encoder, axes=axes)
        center, _ = one_pass(network, sound)
        matrix = torch.randn(len(center), 48) / len(center) ** 0.5
        projection = Projection(center / 2, matrix, form="random")
        network.readout = LayeredReadout(encoder, projection, axes)
    return network


def _axes(frames: Tensor) -> Axes:
    """Random ones, along which these frames (T, N) have a deviation of a third."""
    matrix = torch.randn(frames.shape[1], N_AXES)
    return Axes(frames.mean(0), matrix / (frames @ matrix).std(0) / 3)
