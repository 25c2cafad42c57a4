"""Adds tables of vectors, as `viola embed` writes them, to a collection, and writes one of it.

Letters: `N` windows, `D` embedding dim.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from pydantic import ValidationError

from models.atomic import replacing
from models.card import Card
from models.runtime import Floats
from service.collections.records import Collection, NewItem
from service.collections.store import Store
from service.commands.bulk import Failure
from service.commands.indexing import COMMIT_ITEMS, UNBOUNDED, vectors_digest
from service.commands.item_names import names_of
from service.commands.tables import ROWS_IN_A_GROUP, Row, TableError, check_target, writing
from service.errors import path_of
from service.formats.collection_requests import ItemAbout
from service.formats.exports import parquet, parts_of

# What libraries raise for a file that is something else
_UNREADABLE = (
    AttributeError,
    BadZipFile,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)

READ = (".npz", ".parquet", ".jsonl")


class _Source(NamedTuple):
    """The recording that a row is of; what a table does not say is None."""

    file: str
    id: str | None = None
    sha256: str | None = None
    metadata: str | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class _Row:
    """A window of a table, with its vector (D,)."""

    source: _Source
    start_s: float
    end_s: float
    vector: Floats


def is_table(file: Path) -> bool:
    """Whether a file is a table of vectors rather than audio."""
    return file.suffix in READ


@dataclass
class Taken:
    """What became of the recordings of a table."""

    added: int = 0
    known: int = 0
    failures: list[Failure] = field(default_factory=list)


def add_table(store: Store, collection: Collection, path: Path) -> Taken:
    """Add the recordings of a table: the rows of one id, or of one file where there are no ids.

    A recording is known again by the digest of its file, else by its vectors.

    Raises:
        TableError: it is no such table, or its vectors are of another space.
    """
    if _has_a_row_a_file(path):
        return _add_rows(store, collection, path)
    rows, space_id = _read(path)
    terms = collection.terms
    if space_id != terms.space_id:
        raise TableError(
            f"{path} holds vectors of space {space_id}; the collection {collection.name} is of "
            f"space {terms.space_id}: name another collection, and by --model who computed them"
        )
    new = list(_items(path, rows, terms.dimensions))
    taken = Taken()
    for first in range(0, len(new), COMMIT_ITEMS):
        some = new[first : first + COMMIT_ITEMS]
        for item, outcome in zip(some, store.items.add(collection, some, UNBOUNDED), strict=True):
            if outcome.refusal is not None:
                taken.failures.append(Failure(item.id or item.sha256, outcome.refusal.message))
            elif outcome.is_new:
                taken.added += 1
            else:
                taken.known += 1
    return taken


def _has_a_row_a_file(path: Path) -> bool:
    """Whether a table is of `viola embed --ray`: its windows are lists."""
    if path.suffix != ".parquet":
        return False
    import pyarrow.parquet

    try:
        return "windows" in pyarrow.parquet.read_schema(path).names
    except (OSError, ValueError):  # said where the table is read
        return False


def _add_rows(store: Store, collection: Collection, path: Path) -> Taken:
    import pyarrow.parquet

    from service.commands.index_run import add_rows

    with pyarrow.parquet.ParquetFile(path) as file:
        added = add_rows(store, collection, file.iter_batches(ROWS_IN_A_GROUP))
    return Taken(added.new, added.known)


def write_table(store: Store, collection: Collection, card: Card, out: Path) -> int:
    """Write every window of a collection, under what its item is called; returns how many.

    A Parquet file is an export: it tells ids, digests and metadata of the items as well.

    Raises:
        TableError: the file cannot be written so.
    """
    if out.suffix == ".parquet":
        return _write_export(store, collection, out)
    names, n_rows = names_of(store.items.every(collection)), 0
    with writing(out, card) as table:
        for part in parts_of(store, collection):
            windows = part.windows
            times = windows.start_s.tolist(), windows.end_s.tolist()
            rows = zip(windows.items.tolist(), *times, windows.vectors, strict=True)
            for key, start_s, end_s, vector in rows:
                if key in names:  # and not added meanwhile
                    table.add(Row(names[key], start_s, end_s, vector))
                    n_rows += 1
    return n_rows


def _write_export(store: Store, collection: Collection, out: Path) -> int:
    import pyarrow.parquet

    check_target(out, (".parquet",))
    with replacing(out) as temporary, temporary.open("wb") as file:
        file.writelines(parquet(collection, parts_of(store, collection)))
    n_rows: int = pyarrow.parquet.read_metadata(out).num_rows
    return n_rows


def _items(path: Path, rows: list[_Row], dimensions: int) -> Iterator[NewItem]:
    by_source: dict[_Source, list[_Row]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    for source, all_of_it in by_source.items():
        # A file that was embedded twice has each window twice
        some = list({(row.start_s, row.vector.tobytes()): row for row in all_of_it}.values())
        vectors: Floats = np.stack([row.vector for row in some]).astype(np.float32)
        file = source.file
        if vectors.shape[1] != dimensions:
            raise TableError(
                f"{path}: the vectors of {file} have {vectors.shape[1]} values; "
                f"expected {dimensions}"
            )
        if not np.isfinite(vectors).all():
            raise TableError(f"{path}: a vector of {file} is not finite")
        start_s = np.array([row.start_s for row in some])
        end_s = np.array([row.end_s for row in some])
        if len(np.unique(start_s)) < len(start_s):
            raise TableError(
                f"{path}: two windows of {file} begin at the same time, as if it were several "
                "recordings; a column id tells those of one name apart, as in the .parquet of "
                "viola vectors"
            )
        about = _about(path, source)
        yield NewItem(
            source.sha256 or vectors_digest(source.id or file, vectors, start_s, end_s),
            start_s,
            end_s,
            vectors,
            _duration_s(path, source, float(end_s.max())),
            id=about.id,
            file=None if file == source.id else file,
            metadata=about.metadata,
        )


def _duration_s(path: Path, source: _Source, end_s: float) -> float:
    """The length of a recording, which may go on behind its last window."""
    duration_s = end_s if source.duration_s is None else source.duration_s
    if not np.isfinite(duration_s):
        raise TableError(f"{path}: {source.file} lasts {duration_s} s; expected its seconds")
    return float(max(end_s, duration_s))


def _about(path: Path, source: _Source) -> ItemAbout:
    try:
        return ItemAbout.model_validate(
            {"id": source.id, "metadata": json.loads(source.metadata or "{}")}
        )
    except ValidationError as error:
        first = error.errors()[0]
        name, why = path_of(first["loc"]), first["msg"].removeprefix("Value error, ")
        raise TableError(f"{path}: {source.file}: {name}: {why}") from None
    except (TypeError, ValueError) as error:
        raise TableError(f"{path}: metadata of {source.file}: {error}") from None


def _read(path: Path) -> tuple[list[_Row], str]:
    """The rows of a table, and the space of its vectors."""
    try:
        reader = {".npz": _read_npz, ".parquet": _read_parquet, ".jsonl": _read_jsonl}[path.suffix]
        sources, start_s, end_s, vectors, space_id = reader(path)
        return _rows(sources, start_s, end_s, vectors), space_id
    except _UNREADABLE as error:
        raise TableError(f"{path} is no table of vectors of viola embed: {error}") from None


def _rows(sources: Any, start_s: Any, end_s: Any, vectors: Any) -> list[_Row]:
    """The rows of a table from its columns.

    Raises:
        ValueError: they are of different lengths, or a row lasts no time.
    """
    matrix = np.asarray(vectors, np.float32)
    times = np.stack([np.asarray(start_s, np.float64), np.asarray(end_s, np.float64)])
    if matrix.ndim != 2:
        raise ValueError(f"its vectors have the shape {matrix.shape}")
    lasts = np.isfinite(times).all(axis=0) & (times[0] >= 0) & (times[0] < times[1])
    if not lasts.all():
        row = int(np.argmin(lasts))
        raise ValueError(f"row {row} lasts from {times[0, row]} to {times[1, row]} s")
    columns = zip(sources, *times.tolist(), matrix, strict=True)
    return [_Row(source, start, end, vector) for source, start, end, vector in columns]


def _read_npz(path: Path) -> tuple[Any, Any, Any, Any, str]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as table:
        columns = [table[name] for name in ("start_s", "end_s", "embedding")]
        sources = [_Source(str(file)) for file in table["file"]]
        return sources, *columns, str(table["space_id"])


def _read_parquet(path: Path) -> tuple[Any, Any, Any, Any, str]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    metadata = table.schema.metadata or {}
    unsaid = [None] * len(table)
    about = (
        table[name].to_pylist() if name in table.column_names else unsaid
        for name in ("id", "sha256", "metadata", "duration_s")
    )
    files = map(str, table["file"].to_pylist())
    sources = [_Source(*said) for said in zip(files, *about, strict=True)]
    columns = [table[name].to_pylist() for name in ("start_s", "end_s")]
    values = table["embedding"].combine_chunks()
    vectors = values.flatten().to_numpy().reshape(len(table), values.type.list_size)
    return sources, *columns, vectors, metadata[b"space_id"].decode()


def _read_jsonl(path: Path) -> tuple[Any, Any, Any, Any, str]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if not rows:
        raise ValueError("it holds no vectors")
    spaces = {row["space_id"] for row in rows}
    if len(spaces) != 1:
        raise ValueError(f"it holds vectors of {len(spaces)} spaces")
    sources = [_Source(str(row["file"])) for row in rows]
    columns = [[row[name] for row in rows] for name in ("start_s", "end_s")]
    vectors = np.array([row["embedding"] for row in rows], np.float32)
    return sources, *columns, vectors, spaces.pop()
