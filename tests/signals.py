"""Signals that the tests make."""

import numpy as np
from numpy.typing import NDArray


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> NDArray[np.float32]:
    """White noise at 16 kHz, (S,)."""
    samples = np.random.default_rng(seed).normal(0, level, round(seconds * 16_000))
    return samples.astype(np.float32)


def tone(
    frequency: float, seconds: float, rate: int = 16_000, level: float = 0.5
) -> NDArray[np.float32]:
    """A sine, (S,)."""
    t = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * t)).astype(np.float32)
