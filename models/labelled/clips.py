"""The audio files of a task, in a folder or in tars beside the table: found, hashed and decoded."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import audio
from models.audio import SAMPLE_RATE
from models.limits import AudioError
from models.machine import available_cpus
from models.sources import Item, items, normal

Floats = NDArray[np.float32]
AHEAD = 64  # clips that are decoded before they are asked for
log = logging.getLogger(__name__)


def locate(root: Path, names: Sequence[str]) -> list[Item | None]:
    """Where each of `names` lies below `root`, None where it does not.

    A first folder that is missing may be a tar of its name instead. Where a name is not there as it
    is written, one of the same letters in another normal form of Unicode is taken: macOS writes an
    umlaut as two characters, a table made elsewhere has it as one.

    Raises:
        SourceError: a tar that cannot be listed.
    """
    members: dict[str, dict[str, Item]] = {}
    folders: dict[Path, dict[str, str]] = {}
    found: list[Item | None] = []
    for name in names:
        first, *_ = Path(name).parts or ("",)  # of "" and "." there are none
        tar = root / f"{first}.tar"
        if first not in members:
            in_tar = tar.is_file() and not (root / first).exists()
            members[first] = {normal(item.name): item for item in items(tar)} if in_tar else {}
        if members[first]:
            found.append(members[first].get(normal(name)))
            continue
        path = root / name
        path = path if path.is_file() else _in_another_form(root, name, folders)
        found.append(Item(root.name, name, str(path), 0, -1) if path.is_file() else None)
    return found


def _in_another_form(root: Path, name: str, folders: dict[Path, dict[str, str]]) -> Path:
    """The path whose parts are those of `name` but for their normal form; `folders` is a cache."""
    path = root
    for part in Path(name).parts:
        if not (path / part).exists():
            if path not in folders:
                listed = os.listdir(path) if path.is_dir() else []
                folders[path] = {normal(entry): entry for entry in listed}
            part = folders[path].get(normal(part), part)
        path /= part
    return path


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
        told = audio.read_header(content).duration_s
        return len(_quietly(content)) / SAMPLE_RATE if told is None else told
    except AudioError:
        return 0.0


def _quietly(content: bytes) -> Floats:
    return audio.decode(content, warn=lambda sentence: None)


def decode(files: Sequence[Item]) -> Iterator[tuple[int, Floats | str]]:
    """Index and samples (S,) of each file at 16 kHz, or in words why it has none; in order.

    The samples are those that are embedded elsewhere: floats, beyond full scale where they are.
    What was noticed about a file is logged.

    In threads, since decoders release the interpreter, and since a person's own script may load a
    task without the guard that other processes need; a few clips ahead of what is taken.
    """
    with ThreadPoolExecutor(available_cpus()) as pool:
        for first in range(0, len(files), AHEAD):
            window = files[first : first + AHEAD]
            yield from enumerate(pool.map(_decode, window), first)


def _decode(item: Item) -> Floats | str:
    def warn(sentence: str) -> None:
        log.warning("%s: %s", item.name, sentence)

    try:
        return audio.decode(item.read() if item.size >= 0 else Path(item.path), warn=warn)
    except AudioError as error:
        return str(error)


def fit(samples: Floats, n_samples: int) -> Floats:
    """Cut to `n_samples` from the start on, or pad with zeros at the end."""
    fitted = np.zeros(n_samples, np.float32)
    kept = samples[:n_samples]
    fitted[: len(kept)] = kept
    return fitted
