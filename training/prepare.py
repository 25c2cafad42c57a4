"""Folders and tars of audio -> a store of 16 kHz PCM (`training.corpus`), decoded in parallel."""

import hashlib
import json
import multiprocessing
import signal
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models import audio
from models.atomic import publish, replacing
from models.runtime import available_cpus
from training.corpus import SCHEMA, CorpusError, index_paths, read_index

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".webm"})
SHARD_BYTES = 128 << 20  # PCM in a shard, about 70 minutes
ERRORS_NAME = "errors.jsonl"


@dataclass(frozen=True)
class FileError:
    """A file that was left out, and why."""

    source: str
    name: str
    reason: str
    message: str


@dataclass(frozen=True)
class PrepareReport:
    """What one run of `prepare` did.

    Attributes:
        clips: files that were decoded and stored.
        hours: their length.
        skipped: files that the store already held.
        shards: shards that were written.
        errors: files that were left out.
    """

    clips: int
    hours: float
    skipped: int
    shards: int
    errors: tuple[FileError, ...]


class _Item(NamedTuple):
    source: str
    name: str
    path: str
    offset: int  # bytes; of the member in a tar
    size: int  # bytes; -1 for a file of its own


class _Clip(NamedTuple):
    pcm: bytes
    sha256: bytes


_Result = _Clip | audio.AudioError | Literal["crashed"]


def prepare(
    sources: Sequence[Path],
    store: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    shard_bytes: int = SHARD_BYTES,
) -> PrepareReport:
    """Decode every audio file of `sources` into `store`; run again to resume or to add.

    A source is called by its folder's or tar's name without `.tar`, a clip by its path inside.
    Files that the store holds are skipped, files that failed are tried again. An interrupted run
    loses the unfinished shard at most. The store depends on the order of the files alone, not on
    the number of workers. One run at a time may write to a store.

    Args:
        sources: folders, searched recursively for files of `SUFFIXES`, or uncompressed tars.
        store: the folder to write to; made if missing.
        workers: processes that decode; None: one a core; 0: this process itself.
        progress: show a progress bar.
        shard_bytes: PCM bytes after which a shard is closed.

    Raises:
        CorpusError: for sources that cannot be listed, or a store that cannot be read.
    """
    if store.is_file():
        raise CorpusError(f"{store} is a file; the last argument names the store's folder")
    listed = _list_sources(sources)
    store.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(store)
    held = _held(store)
    items = [item for item in listed if (item.source, item.name) not in held]
    writer = _Writer(store, shard_bytes)
    errors: list[FileError] = []
    tried: set[tuple[str, str]] = set()
    try:
        with writer, _bar(disable=not progress) as bar:
            task = bar.add_task("preparing", total=len(items), hours=0.0, errors=0)
            for item, result in zip(items, _decode_all(items, workers), strict=True):
                tried.add((item.source, item.name))
                if isinstance(result, _Clip):
                    writer.add(item, result)
                else:
                    errors.append(_file_error(item, result))
                bar.update(task, advance=1, hours=writer.hours, errors=len(errors))
    finally:
        _write_errors(store, tried, errors)
    skipped = len(listed) - len(items)
    return PrepareReport(writer.n_clips, writer.hours, skipped, writer.n_shards, tuple(errors))


# What there is to do


def _list_sources(sources: Sequence[Path]) -> list[_Item]:
    items: list[_Item] = []
    names: set[str] = set()
    for path in sources:
        is_folder = path.is_dir()
        name = path.resolve().name if is_folder else path.name.removesuffix(".tar")
        if name in names:
            raise CorpusError(f"two sources are called {name!r}; rename one of them")
        names.add(name)
        found = _list_folder(path, name) if is_folder else _list_tar(path, name)
        if not found:
            raise CorpusError(f"{path} holds no files of {', '.join(sorted(SUFFIXES))}")
        items += found
    return items


def _list_folder(folder: Path, source: str) -> list[_Item]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [
        _Item(source, name, str(folder / name), 0, -1) for name in sorted(names) if _is_audio(name)
    ]


def _list_tar(path: Path, source: str) -> list[_Item]:
    if not path.is_file():
        raise CorpusError(f"{path} is neither a folder nor a file")
    try:
        with tarfile.open(path, "r:") as tar:
            return [
                _Item(source, member.name, str(path), member.offset_data, member.size)
                for member in tar
                if member.isreg() and not member.issparse() and _is_audio(member.name)
            ]
    except tarfile.TarError as error:
        raise CorpusError(
            f"{path} is not an uncompressed tar: members are read by their offset; unpack it and "
            "name the folder, or decompress it (gunzip, unxz, zstd -d)"
        ) from error


def _is_audio(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _remove_leftovers(store: Path) -> None:
    """Remove what an interrupted run left: temporaries, and PCM without an index."""
    for path in store.glob("*.tmp"):
        path.unlink()
    for path in store.glob("shard-*.pcm"):
        if not path.with_suffix(".parquet").exists():
            path.unlink()


def _held(store: Path) -> set[tuple[str, str]]:
    held: set[tuple[str, str]] = set()
    for path in index_paths(store):
        table = read_index(path)
        held.update(zip(table["source"].to_pylist(), table["name"].to_pylist(), strict=True))
    return held


# Decoding


def _decode(item: _Item) -> _Clip | audio.AudioError:
    """Decode a file, or a member of a tar, to PCM."""
    try:
        blocks = audio.stream(Path(item.path) if item.size < 0 else _member(item))
        pcm = b"".join(pcm16(block).tobytes() for block in blocks)
    except audio.AudioError as error:
        return error
    return _Clip(pcm, hashlib.sha256(pcm).digest())


def _member(item: _Item) -> bytes:
    with open(item.path, "rb") as tar:
        tar.seek(item.offset)
        return tar.read(item.size)


def pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round float samples in [-1, 1) to little-endian int16, clipping what lies beyond."""
    return np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype("<i2")


def _decode_all(items: Sequence[_Item], workers: int | None) -> Iterator[_Result]:
    """Decode in parallel, in the order of `items`, with a bounded number of clips in memory."""
    if workers == 0:
        yield from map(_decode, items)
        return
    n_workers = workers or available_cpus()
    window = 2 * n_workers
    done = 0
    while done < len(items):
        try:
            for result in _in_order(islice(items, done, None), n_workers, window):
                yield result
                done += 1
        except BrokenProcessPool:  # a decoder died: find out on which of the files in flight
            for item in items[done : done + window]:
                yield _decode_alone(item)
                done += 1


def _in_order(items: Iterator[_Item], n_workers: int, window: int) -> Iterator[_Result]:
    pending: deque[Future[_Clip | audio.AudioError]] = deque()
    pool = _pool(n_workers)
    try:
        for item in items:
            pending.append(pool.submit(_decode, item))
            if len(pending) == window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_alone(item: _Item) -> _Result:
    try:
        with _pool(1) as pool:
            return pool.submit(_decode, item).result()
    except BrokenProcessPool:
        return "crashed"


def _pool(n_workers: int) -> ProcessPoolExecutor:
    """Fresh interpreters: a fork of a process that runs threads or CUDA is not safe."""
    return ProcessPoolExecutor(
        n_workers,
        multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),  # Ctrl-C is the parent's to answer
    )


# Writing


class _Writer:
    """Appends clips to shards; leaving the context commits the last one, unless by an exception."""

    def __init__(self, store: Path, shard_bytes: int) -> None:
        self.store = store
        self.shard_bytes = shard_bytes
        self.n_clips = self.n_samples = self.n_shards = 0
        self._number = len(list(store.glob("shard-*.parquet")))
        self._pcm: BinaryIO | None = None
        self._rows: list[tuple[str, str, int, int, bytes]] = []
        self._end = 0  # samples in the open shard

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        elif self._pcm is not None:
            self._pcm.close()

    @property
    def hours(self) -> float:
        return self.n_samples / audio.SAMPLE_RATE / 3600

    def add(self, item: _Item, clip: _Clip) -> None:
        if self._pcm is None:
            self._pcm = self._temporary.open("wb")
        self._pcm.write(clip.pcm)
        length = len(clip.pcm) // 2
        self._rows.append((item.source, item.name, self._end, length, clip.sha256))
        self._end += length
        self.n_clips += 1
        self.n_samples += length
        if 2 * self._end >= self.shard_bytes:
            self.commit()

    def commit(self) -> None:
        """Close the open shard, if there is one: first its PCM, then its index."""
        if self._pcm is None:
            return
        self._pcm.close()
        publish(self._temporary, self._shard.with_suffix(".pcm"))
        columns = dict(zip(SCHEMA.names, zip(*self._rows, strict=True), strict=True))
        with replacing(self._shard.with_suffix(".parquet")) as temporary:
            pq.write_table(pa.table(columns, SCHEMA), temporary)
        self._number += 1
        self.n_shards += 1
        self._pcm, self._rows, self._end = None, [], 0

    @property
    def _shard(self) -> Path:
        return self.store / f"shard-{self._number:05d}"

    @property
    def _temporary(self) -> Path:
        return self._shard.with_suffix(".pcm.tmp")


def _file_error(item: _Item, error: audio.AudioError | Literal["crashed"]) -> FileError:
    if isinstance(error, audio.AudioError):
        return FileError(item.source, item.name, error.reason, str(error))
    message = "the process that decoded the file died; encode the file again"
    return FileError(item.source, item.name, "crashed", message)


def _write_errors(store: Path, tried: set[tuple[str, str]], errors: Sequence[FileError]) -> None:
    """Replace the entries of the files that were tried, and keep the others."""
    path = store / ERRORS_NAME
    old = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    kept = [entry for entry in old if (entry["source"], entry["name"]) not in tried]
    lines = [json.dumps(entry) + "\n" for entry in [*kept, *map(asdict, errors)]]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines))


def _bar(*, disable: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[hours]:.2f} h, {task.fields[errors]} errors"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=disable,
    )
