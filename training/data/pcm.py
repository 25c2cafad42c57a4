"""Samples of a store on their device. Letters: `B` batch, `S` samples."""

from torch import Tensor

from models.pcm import FULL_SCALE


def pcm_to_float(pcm: Tensor) -> Tensor:
    """Int16 samples -> float32 in [-1, 1), shape kept."""
    return pcm.float() / FULL_SCALE
