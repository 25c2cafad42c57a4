"""Two small encoders, one of each kind."""

from collections.abc import Callable

import torch

from models.nn.encoder import AudioNTT2020, AudioNTT2022, ConvEncoder
from models.nn.model import WaveformEncoder

SMALL: dict[str, Callable[[], ConvEncoder]] = {
    "AudioNTT2020": lambda: AudioNTT2020(embed_dim=32),
    "AudioNTT2022": lambda: AudioNTT2022(embed_dim=1056, hidden_dim=32),
}


def small_network(name: str) -> WaveformEncoder:
    """An encoder with random weights and random batch-norm statistics, as after training."""
    torch.manual_seed(0)
    encoder = SMALL[name]()
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for statistic, (low, high) in {
                "running_mean": (-1, 1),
                "running_var": (0.5, 2),
                "weight": (0.5, 1.5),
                "bias": (-0.5, 0.5),
            }.items():
                getattr(layer, statistic).data.uniform_(low, high)
    return WaveformEncoder(encoder, mean=-5.5, std=5.0).eval()
