"""Clips that can be told apart sample by sample, and stores made of them."""

import numpy as np
import soundfile as sf

from training.prepare import prepare

LENGTHS = [50, 700, 120, 999, 1, 300]  # samples of the clips in a folder of ramps


def ramp(number, length):
    """A clip whose every sample tells its clip and its place."""
    return (1_000 * number + 1 + np.arange(length)).astype(np.int16)


def write_wav(path, samples):
    """16-bit samples as a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples, 16_000, "PCM_16")


def run(sources, store, **options):
    """`prepare` in this process, without a bar."""
    return prepare(sources, store, workers=0, progress=False, **options)
