"""Samples as 16-bit integers, as stores and labelled clips keep them. Letters: `S` samples."""

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32_768


def pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round float samples in [-1, 1) to little-endian int16, clipping what lies beyond: (S,)."""
    return np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def samples(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """The samples that these integers stand for: (S,) -> (S,)."""
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)
