"""Clips that can be told apart sample by sample, and stores made of them."""

import numpy as np
import soundfile as sf

from tests.signals import noise, tone
from training.data.prepare import prepare

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


def write_noise(folder, n_clips=10):
    """A store of clips of noise and a tone, each longer and higher than the one before."""
    for number in range(n_clips):
        seconds = 0.4 + number / 5
        clip = noise(seconds, seed=number) + tone(200 * (number + 1), seconds)
        path = folder / "clips" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, clip, 16_000)
    run([folder / "clips"], folder / "store")
    return folder / "store"


def write_task(folder, n_clips=16):
    """A table of tones, low and high in turn, in two folds; its path."""
    lines = ["file_name,label,fold"]
    for number in range(n_clips):
        high = number % 2
        name = f"tones/{number}.wav"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, tone(400 + 2000 * high + 10 * number, 0.5), 16_000)
        lines.append(f"{name},{'high' if high else 'low'},{number % 4 // 2}")
    table = folder / "tones.csv"
    table.write_text("\n".join(lines) + "\n")
    return table
