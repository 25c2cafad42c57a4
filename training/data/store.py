"""Writing a store (`training.data.corpus`): one process at a time, the same content only once."""

import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.atomic import publish, replacing
from models.audio import SAMPLE_RATE
from models.lock import locked
from models.sources import Item
from training.data.corpus import SCHEMA, CorpusError, clip_digests, read_index
from training.data.decoders import Clip

SHARD_BYTES = 1 << 30  # PCM in a shard, 9 hours
LOCK_NAME = "prepare.lock"
DUPLICATES_NAME = "duplicates.jsonl"
DUPLICATES_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("source", "name", "kept_source", "kept_name")]
)


@contextmanager
def sole_writer(store: Path) -> Iterator[None]:
    """Make the folder `store` if missing, and be the only process that writes to it.

    Raises:
        CorpusError: another process is.
    """
    store.mkdir(parents=True, exist_ok=True)
    message = f"another `viola prepare` is writing to {store}; wait for it to end"
    with locked(store / LOCK_NAME, CorpusError(message)):
        yield


def remove_leftovers(store: Path) -> None:
    """Remove what an interrupted run left: temporaries, PCM without an index, half a line."""
    for path in store.glob("*.tmp"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in store.glob("shard-*.pcm"):
        if not path.with_suffix(".parquet").exists():
            path.unlink()
    log = store / DUPLICATES_NAME
    if log.exists():
        with log.open("rb+") as file:
            start = max(0, file.seek(0, os.SEEK_END) - (1 << 16))
            file.seek(start)
            file.truncate(start + file.read().rfind(b"\n") + 1)


def read_duplicates(store: Path) -> pa.Table:
    """The files that were left out because of a clip of the same content, a row each."""
    path = store / DUPLICATES_NAME
    if not path.exists() or not path.stat().st_size:
        return DUPLICATES_SCHEMA.empty_table()
    options = pyarrow.json.ParseOptions(DUPLICATES_SCHEMA, unexpected_field_behavior="error")
    try:
        return pyarrow.json.read_json(path, parse_options=options)
    except pa.ArrowException as error:
        message = f"{path} cannot be read; remove it and run `viola prepare` again"
        raise CorpusError(message) from error


def duplicate_line(source: str, name: str, kept_source: str, kept_name: str) -> str:
    """A line of the list of duplicates."""
    values = (source, name, kept_source, kept_name)
    return json.dumps(dict(zip(DUPLICATES_SCHEMA.names, values, strict=True))) + "\n"


def next_shard(store: Path) -> Path:
    """The first that does not exist, without a suffix."""
    shards = (store / f"shard-{number:05d}" for number in count())
    return next(path for path in shards if not path.with_suffix(".parquet").exists())


class Writer:
    """Appends clips to shards; leaving the context commits the last one, unless by an exception.

    A clip whose content the store holds already is not stored, but written to the list of
    duplicates, once the clip that it equals is committed. A shard that was removed from between
    others is written first.

    Attributes:
        n_clips: clips that were added.
        n_duplicates: clips that were not.
        n_samples: length of the clips that were added.
        n_shards: shards that were written.
    """

    def __init__(self, store: Path, shard_bytes: int) -> None:
        self.store = store
        self.shard_bytes = shard_bytes
        self.n_clips = self.n_duplicates = self.n_samples = self.n_shards = 0
        self._clips = _Clips(sorted(store.glob("shard-*.parquet")))
        self._shard = next_shard(store)
        self._pcm: BinaryIO | None = None
        self._waiting: list[str] = []  # duplicates of clips in the open shard
        self._duplicates = (store / DUPLICATES_NAME).open("a", buffering=1)  # a line at a time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self._duplicates.close()
            if self._pcm is not None:  # unfinished: of no use without its index
                with suppress(OSError):  # a full disk refuses what is still buffered, too
                    self._pcm.close()
                self._temporary.unlink(missing_ok=True)
                self._shard.with_suffix(".pcm").unlink(missing_ok=True)

    @property
    def hours(self) -> float:
        """Length of the clips that were added."""
        return self.n_samples / SAMPLE_RATE / 3600

    def add(self, item: Item, clip: Clip) -> None:
        """Append a clip, unless the store holds one of the same content."""
        if (kept := self._clips.find(clip.sha256)) is not None:
            self._add_duplicate(item, kept)
            return
        if self._pcm is None:
            self._pcm = self._temporary.open("wb")
        self._pcm.write(clip.pcm)
        length = len(clip.pcm) // 2
        self._clips.append(item.source, item.name, length, clip.sha256)
        self.n_clips += 1
        self.n_samples += length
        if 2 * self._clips.open_samples >= self.shard_bytes:
            self.commit()

    def commit(self) -> None:
        """Close the open shard, if there is one: its PCM, its index, then what equals its clips."""
        if self._pcm is None:
            return
        self._pcm.close()
        publish(self._temporary, self._shard.with_suffix(".pcm"))
        index = self._shard.with_suffix(".parquet")
        with replacing(index) as temporary:
            pq.write_table(self._clips.open_table(), temporary)
        self._clips.commit(index)
        self._duplicates.writelines(self._waiting)
        self.n_shards += 1
        self._pcm, self._waiting, self._shard = None, [], next_shard(self.store)

    def _add_duplicate(self, item: Item, kept: "_Found") -> None:
        self.n_duplicates += 1
        line = duplicate_line(item.source, item.name, kept.source, kept.name)
        if kept.committed:
            self._duplicates.write(line)
        else:
            self._waiting.append(line)

    @property
    def _temporary(self) -> Path:
        return self._shard.with_suffix(".pcm.tmp")


class _Found(NamedTuple):
    source: str
    name: str
    committed: bool


class _Clips:
    """The clips of a store, found by their content: 16 bytes a clip, more for the open shard."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.open_samples = 0
        self._open: list[tuple[str, str, int, int, bytes]] = []  # rows of `SCHEMA`
        self._open_keys: dict[int, int] = {}
        self._indexes: list[Path] = []
        self._firsts: list[int] = []  # number of the first row of each index
        self._n_rows = 0
        self._read = lru_cache(maxsize=4)(read_index)
        keys = [_keys(read_index(path, ["sha256"])) for path in paths]
        for path, shard in zip(paths, keys, strict=True):
            self._add_index(path, len(shard))
        found = np.concatenate([np.empty(0, np.uint64), *keys])
        self._rows: NDArray[np.int64] = np.argsort(found, kind="stable")
        self._keys: NDArray[np.uint64] = found[self._rows]

    def find(self, sha256: bytes) -> _Found | None:
        """A clip whose PCM has this digest."""
        key = int.from_bytes(sha256[:8], "little")
        if key in self._open_keys:
            source, name, _, _, other = self._open[self._open_keys[key]]
            return _Found(source, name, False) if other == sha256 else None
        place = int(np.searchsorted(self._keys, np.uint64(key)))
        if place == len(self._keys) or int(self._keys[place]) != key:
            return None
        row = int(self._rows[place])
        number = bisect_right(self._firsts, row) - 1
        index = self._read(self._indexes[number])
        clip = index.slice(row - self._firsts[number], 1).to_pylist()[0]
        return _Found(clip["source"], clip["name"], True) if clip["sha256"] == sha256 else None

    def append(self, source: str, name: str, length: int, sha256: bytes) -> None:
        """Add a clip to the open shard."""
        self._open_keys[int.from_bytes(sha256[:8], "little")] = len(self._open)
        self._open.append((source, name, self.open_samples, length, sha256))
        self.open_samples += length

    def open_table(self) -> pa.Table:
        """The index of the open shard."""
        columns = zip(*self._open, strict=True)
        return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)

    def commit(self, path: Path) -> None:
        """Close the open shard, whose index is at `path` now."""
        keys = _keys(self.open_table())
        order = np.argsort(keys, kind="stable")
        places = np.searchsorted(self._keys, keys[order])
        self._rows = np.insert(self._rows, places, self._n_rows + order)
        self._keys = np.insert(self._keys, places, keys[order])
        self._add_index(path, len(keys))
        self._open, self._open_keys, self.open_samples = [], {}, 0

    def _add_index(self, path: Path, n_rows: int) -> None:
        self._indexes.append(path)
        self._firsts.append(self._n_rows)
        self._n_rows += n_rows


def _keys(index: pa.Table) -> NDArray[np.uint64]:
    """The first 8 bytes of each clip's digest; who finds one compares the whole digest."""
    keys: NDArray[np.uint64] = np.ascontiguousarray(clip_digests(index)[:, :8]).view("<u8")[:, 0]
    return keys
