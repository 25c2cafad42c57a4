"""The audio files of a task, in a folder or in tars beside the table: found, hashed and decoded."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from models import audio
from models.audio import SAMPLE_RATE
from models.pcm import pcm16
from models.runtime import available_cpus
from models.sources import Item, items

Pcm = NDArray[np.int16]
AHEAD = 64  # clips that are decoded before they are asked for


def locate(root: Path, names: Sequence[str]) -> list[Item | None]:
    """Where each of `names` lies below `root`, None where it does not.

    A first folder that is missing may be a tar of its name instead.

    Raises:
        SourceError: a tar that cannot be listed.
    """
    members: dict[str, dict[str, Item]] = {}
    found: list[Item | None] = []
    for name in names:
        first = Path(name).parts[0] if name else ""
        tar = root / f"{first}.tar"
        if first not in members:
            in_tar = tar.is_file() and not (root / first).exists()
            members[first] = {item.name: item for item in items(tar)} if in_tar else {}
        path = root / name
        if members[first]:
            found.append(members[first].get(name))
        else:
            found.append(Item(root.name, name, str(path), 0, -1) if path.is_file() else None)
    return found


def survey(files: Sequence[Item]) -> tuple[list[str], list[float]]:
    """The hash of each file's content, and the seconds that its header tells (0: none)."""
    with ThreadPoolExecutor(available_cpus()) as pool:
        digests, seconds = [], []
        for digest, length in pool.map(_survey, files):
            digests.append(digest)
            seconds.append(length)
    return digests, seconds


def _survey(item: Item) -> tuple[str, float]:
    content = item.read()
    return hashlib.sha256(content).hexdigest(), _seconds(content)


def _seconds(content: bytes) -> float:
    try:
        return float(sf.info(io.BytesIO(content)).duration)
    except sf.LibsndfileError:  # a container that PyAV reads, or a broken file
        pass
    try:
        return len(audio.decode(content)) / SAMPLE_RATE
    except audio.AudioError:
        return 0.0


def decode(files: Sequence[Item]) -> Iterator[tuple[int, Pcm | str]]:
    """Index and samples of each file at 16 kHz, or in words why it has none; in order.

    In threads, since decoders release the interpreter, and since a person's own script may load a
    task without the guard that other processes need; a few clips ahead of what is taken.
    """
    with ThreadPoolExecutor(available_cpus()) as pool:
        for first in range(0, len(files), AHEAD):
            window = files[first : first + AHEAD]
            yield from enumerate(pool.map(_decode, window), first)


def _decode(item: Item) -> Pcm | str:
    try:
        return pcm16(audio.decode(item.read() if item.size >= 0 else Path(item.path)))
    except audio.AudioError as error:
        return str(error)


def fit(pcm: Pcm, n_samples: int) -> Pcm:
    """Cut to `n_samples` from the start on, or pad with zeros at the end."""
    fitted = np.zeros(n_samples, np.int16)
    kept = pcm[:n_samples]
    fitted[: len(kept)] = kept
    return fitted
