"""Tables of vectors, as `viola embed` writes them, into a collection, and out of one.

Letters: `N` windows, `D` embedding dim.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from models.runtime import Floats
from service.collections.records import Collection, NewItem
from service.collections.store import Store
from service.commands.indexing import COMMIT_ITEMS, UNBOUNDED, vectors_digest
from service.commands.tables import ROWS_IN_A_GROUP, Row, TableError

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


def is_table(file: Path) -> bool:
    """Whether a file is a table of vectors rather than audio."""
    return file.suffix in READ


def add_table(store: Store, collection: Collection, path: Path) -> tuple[int, int]:
    """Add the recordings of a table: how many were added, how many were there already.

    A recording is the rows of one file. It is known again by its vectors, since the table does not
    hold the file.

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
            f"space {terms.space_id}"
        )
    new = list(_items(path, rows, terms.dimensions))
    n_added = 0
    for first in range(0, len(new), COMMIT_ITEMS):
        some = store.items.add(collection, new[first : first + COMMIT_ITEMS], UNBOUNDED)
        n_added += sum(added.is_new for added in some)
    return n_added, len(new) - n_added


def _has_a_row_a_file(path: Path) -> bool:
    """Whether a table is of `viola embed --ray`: its windows are lists."""
    if path.suffix != ".parquet":
        return False
    import pyarrow.parquet

    try:
        return "windows" in pyarrow.parquet.read_schema(path).names
    except (OSError, ValueError):  # said where the table is read
        return False


def _add_rows(store: Store, collection: Collection, path: Path) -> tuple[int, int]:
    import pyarrow.parquet

    from service.commands.index_run import add_rows

    with pyarrow.parquet.ParquetFile(path) as file:
        added = add_rows(store, collection, file.iter_batches(ROWS_IN_A_GROUP))
    return added.new, added.known


def rows_of(store: Store, collection: Collection) -> Iterator[Row]:
    """Every window of a collection, under the name of its file, else under its id."""
    for windows in store.windows.after(collection, 0):
        items = store.items.by_key(collection, np.unique(windows.items).tolist())
        rows = zip(
            windows.items.tolist(),
            windows.start_s.tolist(),
            windows.end_s.tolist(),
            windows.vectors,
            strict=True,
        )
        for key, start_s, end_s, vector in rows:
            if key in items:  # and not deleted meanwhile
                yield Row(items[key].file or items[key].id, start_s, end_s, vector)


def _items(path: Path, rows: list[Row], dimensions: int) -> Iterator[NewItem]:
    by_file: dict[str, list[Row]] = {}
    for row in rows:
        by_file.setdefault(row.file, []).append(row)
    for file, some in by_file.items():
        vectors: Floats = np.stack([row.embedding for row in some]).astype(np.float32)
        if vectors.shape[1] != dimensions:
            raise TableError(
                f"{path}: the vectors of {file} have {vectors.shape[1]} values; "
                f"expected {dimensions}"
            )
        if not np.isfinite(vectors).all():
            raise TableError(f"{path}: a vector of {file} is not finite")
        start_s = np.array([row.start_s for row in some])
        end_s = np.array([row.end_s for row in some])
        digest = vectors_digest(file, vectors, start_s, end_s)
        yield NewItem(digest, start_s, end_s, vectors, float(end_s.max()), file=file)


def _read(path: Path) -> tuple[list[Row], str]:
    """The rows of a table, and the space of its vectors."""
    try:
        reader = {".npz": _read_npz, ".parquet": _read_parquet, ".jsonl": _read_jsonl}[path.suffix]
        files, start_s, end_s, vectors, space_id = reader(path)
        return _rows(files, start_s, end_s, vectors), space_id
    except _UNREADABLE as error:
        raise TableError(f"{path} is no table of vectors of viola embed: {error}") from None


def _rows(files: Any, start_s: Any, end_s: Any, vectors: Any) -> list[Row]:
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
    columns = zip(files, *times.tolist(), matrix, strict=True)
    return [Row(str(file), start, end, vector) for file, start, end, vector in columns]


def _read_npz(path: Path) -> tuple[Any, Any, Any, Any, str]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as table:
        columns = [table[name] for name in ("file", "start_s", "end_s", "embedding")]
        return *columns, str(table["space_id"])


def _read_parquet(path: Path) -> tuple[Any, Any, Any, Any, str]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    metadata = table.schema.metadata or {}
    columns = [table[name].to_pylist() for name in ("file", "start_s", "end_s")]
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    return *columns, vectors, metadata[b"space_id"].decode()


def _read_jsonl(path: Path) -> tuple[Any, Any, Any, Any, str]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    spaces = {row["space_id"] for row in rows}
    if len(spaces) != 1:
        raise ValueError(f"it holds vectors of {len(spaces)} spaces")
    columns = [[row[name] for row in rows] for name in ("file", "start_s", "end_s")]
    vectors = np.array([row["embedding"] for row in rows], np.float32)
    return *columns, vectors, spaces.pop()
