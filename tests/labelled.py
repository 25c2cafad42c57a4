"""Small labelled collections: classes are tones of a pitch, in folders, tars and tables."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from tests.signals import noise, tone

PITCHES = {"high": 3000.0, "low": 150.0, "mid": 700.0}


def clip(label: str, seed: int, seconds: float = 0.3) -> NDArray[np.float32]:
    """A tone of the class's pitch in a little noise, (S,)."""
    level = 0.2 + 0.3 * np.random.default_rng(seed).random()
    return tone(PITCHES[label], seconds, level=level) + noise(seconds, seed, level=0.02)


def write_clip(path: Path, samples: NDArray[np.float32]) -> None:
    """A WAV, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples, 16_000, "PCM_16")


def write_table(folder: Path, columns: str, rows: Sequence[str], name: str = "task") -> Path:
    """A CSV of rows that begin with file name and label, with a tone for each file."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, row in enumerate(rows):
        file_name, label = row.split(",")[:2]
        write_clip(folder / file_name, clip(label if label in PITCHES else "low", seed))
    path = folder / f"{name}.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def table_of_folds(folder: Path, n: int = 30, n_folds: int = 3) -> Path:
    """A task of three classes by their pitch, that any encoder can tell apart."""
    labels = sorted(PITCHES)
    rows = [f"tones/{i:03}.wav,{labels[i % 3]},{1 + i // 3 % n_folds}" for i in range(n)]
    return write_table(folder, "file_name,label,fold", rows, name="tones")


def pack(folder: Path, name: str) -> None:
    """Put `folder/name` into `folder/name.tar` and remove it."""
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        tar.add(folder / name, name)
    for path in sorted((folder / name).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / name).rmdir()
