"""The parts of a store (`training.data.parts`) -> one store, as if it had been prepared at once.

The clips are those of the parts in their order, less those whose content the store or an earlier
part has: so the store holds the same clips in the same order as one run would have written, and
everything that is drawn or measured from it is the same. Shards are linked under their new names;
only one that loses a clip is written again.

Whatever stops a merge, the next one goes on: shards appear in order, and what is already in the
store is known by its source and name. Until then the store cannot be opened.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.atomic import replacing
from models.audio import SAMPLE_RATE
from training.data.corpus import (
    MERGING_NAME,
    PARTS_NAME,
    SCHEMA,
    CorpusError,
    clip_digests,
    clip_lengths,
    index_paths,
    read_index,
)
from training.data.notices import ERRORS_NAME, WARNINGS_NAME, Notices, read_notices
from training.data.parts import (
    AGAIN,
    NOTE_NAME,
    Part,
    find_parts,
    n_clips,
    read_note,
    remedy,
)
from training.data.store import (
    DUPLICATES_NAME,
    duplicate_line,
    next_shard,
    read_duplicates,
    remove_leftovers,
    sole_writer,
)
from training.data.verify import BLOCK, verify

N_SHOWN = 3  # damages that are named
COPIED_INSTEAD = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)  # where no link is made

Name = tuple[str, str]  # source and name of a file


@dataclass(frozen=True)
class MergeReport:
    """What was merged.

    Attributes:
        parts: how many.
        clips: that the store has gained, now and before a merge was stopped.
        hours: their length.
        duplicates: clips that were left out: the store or an earlier part has their content.
        errors: files that no part could decode.
    """

    parts: int
    clips: int
    hours: float
    duplicates: int
    errors: int


def merge(store: Path, *, workers: int | None = None, progress: bool = True) -> MergeReport:
    """Make one store of `store` and the parts in it, once every clip of them has been proved.

    Args:
        store: the folder that they were prepared in.
        workers: threads that prove the clips; None: one a core.
        progress: show progress bars.

    Raises:
        CorpusError: a part is missing, not done, damaged or being written to; the store is not
            changed then.
    """
    waiting, merging = store / PARTS_NAME, store / MERGING_NAME
    if not (waiting.is_dir() or merging.is_dir()):
        raise CorpusError(f"{store} has no parts; {AGAIN.format('K/N')} makes one")
    with ExitStack() as locks:
        locks.enter_context(sole_writer(store))
        remove_leftovers(store)
        if not merging.is_dir():
            _claim(waiting, locks, workers, progress=progress)
            os.rename(waiting, merging)
        parts = [merging / part.folder_name for part in find_parts(merging)]
        report = merge_parts(store, parts)
        done = merging.with_suffix(".tmp")  # half of it would not be known as merged
        os.rename(merging, done)
        shutil.rmtree(done)
    return report


def _claim(folder: Path, locks: ExitStack, workers: int | None, *, progress: bool) -> None:
    """Lock every part, and prove that it is whole."""
    for part in find_parts(folder):
        path = folder / part.folder_name
        locks.enter_context(sole_writer(path))
        remove_leftovers(path)
        _prove(path, part, workers, progress=progress)


def _prove(path: Path, part: Part, workers: int | None, *, progress: bool) -> None:
    """Refuse a part that does not hold what its note tells of, each clip as it was written."""
    note = read_note(path)
    damages = list(
        verify(path, workers=workers, progress=progress).damages if index_paths(path) else ()
    )
    if not damages and note is not None and n_clips(path) != note.clips:
        damages.append(f"it holds {n_clips(path)} clips, {NOTE_NAME} tells of {note.clips}")
    if damages:
        named = "; ".join(damages[:N_SHOWN])
        more = f" and {len(damages) - N_SHOWN} more" if len(damages) > N_SHOWN else ""
        raise CorpusError(f"part {part} in {path} is damaged: {named}{more}; {remedy(part)}")


def merge_parts(store: Path, parts: Sequence[Path]) -> MergeReport:
    """Add the shards of parts that have been proved to a store, which nobody else writes to."""
    held = index_paths(store)
    clips = _Clips(held, [index for part in parts for index in index_paths(part)])
    for number, index in enumerate(clips.indexes[len(held) :], len(held)):
        _add_shard(store, index, clips.is_first(number))
    left_out = clips.left_out()
    _write_duplicates(store, parts, left_out)
    _write_notices(store, parts, WARNINGS_NAME)
    n_errors = _write_notices(store, parts, ERRORS_NAME)
    hours = clips.n_samples / SAMPLE_RATE / 3600
    return MergeReport(len(parts), clips.n_clips, hours, len(left_out), n_errors)


class _Clips:
    """The clips of the store and of its parts, in a row: 50 bytes each.

    Attributes:
        indexes: of the store's shards, then of the parts'.
        n_clips: clips of the parts that the store is to have.
        n_samples: their samples.
    """

    def __init__(self, held: Sequence[Path], new: Sequence[Path]) -> None:
        self.indexes = [*held, *new]
        tables = [read_index(path, ["sha256", "length"]) for path in self.indexes]
        self._firsts = np.cumsum([0, *(table.num_rows for table in tables)])
        digests = [np.empty((0, 32), np.uint8), *map(clip_digests, tables)]
        contents = np.ascontiguousarray(np.concatenate(digests)).view("V32")[:, 0]
        _, first, content_of = np.unique(contents, return_index=True, return_inverse=True)
        self._first: NDArray[np.int64] = first[content_of]  # row of the first clip like each
        again = np.flatnonzero(self._first != np.arange(len(contents)))
        names, firsts = self._names(again), self._names(self._first[again])
        # A clip that has been merged already is its own first
        self._left_out = {a: b for a, b in zip(names, firsts, strict=True) if a != b}
        is_new = np.arange(len(contents)) >= self._firsts[len(held)]
        is_new[again[[a != b for a, b in zip(names, firsts, strict=True)]]] = False
        lengths = np.concatenate([np.empty(0, np.int64), *(t["length"].to_numpy() for t in tables)])
        self.n_clips, self.n_samples = int(is_new.sum()), int(lengths[is_new].sum())

    def is_first(self, number: int) -> NDArray[np.bool_]:
        """Which clips of an index are the first of their content."""
        rows = np.arange(self._firsts[number], self._firsts[number + 1])
        is_first: NDArray[np.bool_] = self._first[rows] == rows
        return is_first

    def left_out(self) -> dict[Name, Name]:
        """The clips that are not stored, and the clip that each of them equals."""
        return self._left_out

    def _names(self, rows: NDArray[np.int64]) -> list[Name]:
        """Source and name of some clips; each index is read once."""
        found: list[Name] = [("", "")] * len(rows)
        numbers = np.searchsorted(self._firsts, rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            index = read_index(self.indexes[number], ["source", "name"])
            taken = index.take(pa.array(rows[places] - self._firsts[number]))
            for place, name in zip(places.tolist(), _pairs(taken), strict=True):
                found[place] = name
        return found


def _add_shard(store: Path, index_path: Path, is_kept: NDArray[np.bool_]) -> None:
    """Add a part's shard to the store, those clips of it that are kept; the index comes last."""
    if not is_kept.any():
        return
    index, shard = read_index(index_path), next_shard(store)
    lengths = clip_lengths(index, index_path)
    source, pcm = index_path.with_suffix(".pcm"), shard.with_suffix(".pcm")
    if is_kept.all():
        _link(source, pcm)
    else:
        ends = np.concatenate([[0], np.cumsum(lengths)])
        with replacing(pcm) as temporary:
            _copy(
                source, temporary, [(2 * int(ends[a]), 2 * int(ends[b])) for a, b in runs(is_kept)]
            )
    lengths = lengths[is_kept]
    columns = index.filter(pa.array(is_kept)).to_pydict()
    columns["offset"], columns["length"] = np.cumsum(lengths) - lengths, lengths
    with replacing(shard.with_suffix(".parquet")) as temporary:
        pq.write_table(pa.table(columns, schema=SCHEMA), temporary)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First place and end of each run of true values."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the disk knows no such thing."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in COPIED_INSTEAD:
            raise
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def _copy(source: Path, target: Path, stretches: Sequence[tuple[int, int]]) -> None:
    """Write some stretches of bytes of a file one after the other."""
    with source.open("rb") as read, target.open("wb") as written:
        for first, end in stretches:
            read.seek(first)
            while first < end and (block := read.read(min(end - first, BLOCK))):
                written.write(block)
                first += len(block)


def _write_duplicates(store: Path, parts: Sequence[Path], left_out: dict[Name, Name]) -> None:
    """The store's list of duplicates: its own, those of the parts, and those between them."""
    equal: dict[Name, Name] = {}
    for folder in (store, *parts):
        for row in read_duplicates(folder).to_pylist():
            kept = row["kept_source"], row["kept_name"]
            equal[row["source"], row["name"]] = left_out.get(kept, kept)
    equal |= left_out
    with replacing(store / DUPLICATES_NAME) as temporary:
        temporary.write_text("".join(duplicate_line(*name, *kept) for name, kept in equal.items()))


def _write_notices(store: Path, parts: Sequence[Path], list_name: str) -> int:
    """One of the store's lists of files with those of the parts; how many files theirs tell of."""
    notices = Notices(store / list_name)
    if notices.known:
        for name in filter(notices.known.__contains__, chain.from_iterable(map(_done, parts))):
            notices.update(*name, ())
    told = 0
    for part in parts:
        by_file = groupby(read_notices(part / list_name), lambda entry: (entry.source, entry.name))
        for name, entries in by_file:
            notices.update(*name, [(entry.reason, entry.message) for entry in entries])
            told += 1
    notices.write()
    return told


def _done(part: Path) -> Iterator[Name]:
    """The files that a part holds, or knows to be duplicates."""
    for index in index_paths(part):
        yield from _pairs(read_index(index, ["source", "name"]))
    yield from _pairs(read_duplicates(part))


def _pairs(table: pa.Table) -> Iterator[Name]:
    return zip(table["source"].to_pylist(), table["name"].to_pylist(), strict=True)
