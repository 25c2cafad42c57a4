"""Every clip of a store (`training.data.corpus`) against its digest; nothing is changed."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.audio import SAMPLE_RATE
from models.machine import available_cpus
from models.progress import TITLE, Bar
from training.data.corpus import CorpusError, clip_lengths, nothing_in, read_index
from training.data.store import read_duplicates

SHARD_NAME = re.compile(r"shard-(\d{5})\.parquet")
BLOCK = 8 << 20  # bytes that are read at a time


@dataclass(frozen=True)
class VerifyReport:
    """What a store holds, and what of it is damaged.

    Attributes:
        clips: clips whose PCM is as it was written.
        hours: their length, for each source in the order of its first clip.
        damages: a line for each damaged clip or shard.
    """

    clips: int
    hours: dict[str, float]
    damages: tuple[str, ...]


class _Shard(NamedTuple):
    clips: int
    samples: Counter[str]  # of each source
    damages: list[str]


def verify(store: Path, *, workers: int | None = None, progress: bool = True) -> VerifyReport:
    """Read all of `store` and compare sizes, places and the SHA-256 of each clip with its index.

    Args:
        store: the folder to check.
        workers: threads that read and hash; None: one a core.
        progress: show a progress bar.

    Raises:
        CorpusError: if `store` holds no shards at all.
    """
    indexes = sorted(store.glob("shard-*.parquet"))
    if not indexes:
        raise CorpusError(nothing_in(store))
    n_bytes = sum(pcm.stat().st_size for pcm in store.glob("shard-*.pcm"))
    damages = [*_misnumbered(indexes), *_unreadable_duplicates(store)]
    clips, samples = 0, Counter[str]()
    with _bar(silent=not progress) as bar:
        task = bar.add_task("checking", total=n_bytes)
        for shard in _check_all(indexes, workers, lambda n: bar.update(task, advance=n)):
            clips += shard.clips
            damages += shard.damages
            samples.update(shard.samples)
    hours = {source: length / SAMPLE_RATE / 3600 for source, length in samples.items()}
    return VerifyReport(clips, hours, tuple(damages))


def _misnumbered(indexes: Sequence[Path]) -> list[str]:
    """Gaps in the numbers of the shards, and names without one."""
    matches = {path.name: SHARD_NAME.fullmatch(path.name) for path in indexes}
    numbers = {int(match[1]) for match in matches.values() if match}
    gaps = sorted(set(range(max(numbers, default=0))) - numbers)
    return [
        *(f"{name} is no name of a shard" for name, match in matches.items() if not match),
        *(f"shard-{number:05d}.parquet is missing" for number in gaps),
    ]


def _unreadable_duplicates(store: Path) -> list[str]:
    try:
        read_duplicates(store)
    except CorpusError as error:
        return [str(error)]
    return []


def _check_all(
    indexes: Sequence[Path], workers: int | None, advance: Callable[[int], None]
) -> Iterator[_Shard]:
    """Check shards in parallel, in their order: reading and hashing run without Python's lock."""
    with ThreadPoolExecutor(workers or available_cpus()) as pool:
        yield from pool.map(lambda index: _check_shard(index, advance), indexes)


def _check_shard(path: Path, advance: Callable[[int], None]) -> _Shard:
    try:
        index = read_index(path)
        n_bytes = 2 * int(clip_lengths(index, path).sum())
    except CorpusError as error:
        return _Shard(0, Counter(), [str(error)])
    pcm = path.with_suffix(".pcm")
    if not pcm.exists():
        return _Shard(0, Counter(), [f"{pcm.name} is missing"])
    damages = []
    if (found := pcm.stat().st_size) != n_bytes:
        damages.append(f"{pcm.name} holds {found} bytes, its index tells of {n_bytes}")
    clips, samples = 0, Counter[str]()
    with pcm.open("rb", buffering=0) as file:
        for clip in index.to_pylist():
            if _digest(file, 2 * clip["offset"], 2 * clip["length"]) == clip["sha256"]:
                clips += 1
                samples[clip["source"]] += clip["length"]
            else:
                damages.append(f"{pcm.name}: {clip['source']}/{clip['name']} has changed")
            advance(2 * clip["length"])
    return _Shard(clips, samples, damages)


def _digest(file: FileIO, start: int, n_bytes: int) -> bytes | None:
    """SHA-256 of a part of a file; None where the disk fails."""
    digest = hashlib.sha256()
    try:
        file.seek(start)
        while block := file.read(min(n_bytes, BLOCK)):
            digest.update(block)
            n_bytes -= len(block)
    except OSError:
        return None
    return digest.digest()


def _bar(*, silent: bool) -> Bar:
    return Bar(
        TITLE,
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        silent=silent,
    )
