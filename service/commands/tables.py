"""Writes timed vectors to a file: .npz, .npy, .parquet or .jsonl; nothing half-written stays.

Letters: `D` embedding dim, `N` rows.
"""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from models.atomic import replacing
from models.card import Card
from service.untrusted import cell

ROWS_IN_A_GROUP = 1024  # of a Parquet file: what is held in memory


@dataclass(frozen=True)
class Row:
    """A vector (D,) and where it comes from; `number` tells files of one name apart."""

    file: str
    start_s: float
    end_s: float
    embedding: NDArray[np.float32]
    number: int = 0  # of the file among those that were given


class TableError(ValueError):
    """A table that cannot be written as asked."""


class Table(ABC):
    """Takes rows one by one, of `n_values` each, and writes them to `path`."""

    def __init__(self, path: Path, card: Card, n_values: int) -> None:
        self.path, self.card, self.n_values = path, card, n_values

    @abstractmethod
    def add(self, row: Row) -> None:
        """Take one row."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left."""

    def release(self) -> None:  # noqa: B027 - formats that hold no file open have nothing to do
        """Close the file, finished or not."""


class _Arrays(Table):
    """Rows in memory, written as NumPy arrays at the end."""

    def __init__(self, path: Path, card: Card, n_values: int) -> None:
        super().__init__(path, card, n_values)
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Keep the row."""
        self.rows.append(row)

    def matrix(self) -> NDArray[np.float32]:
        """All vectors, (N, D)."""
        if not self.rows:
            return np.empty((0, self.n_values), np.float32)
        return np.stack([row.embedding for row in self.rows])


class Npz(_Arrays):
    """`embedding` (N, D), `file`, `start_s`, `end_s` (N,), `model` and `space_id`."""

    def finish(self) -> None:
        """Write the archive."""
        arrays = {
            "embedding": self.matrix(),
            "file": np.array([row.file for row in self.rows], dtype=np.str_),
            "start_s": np.array([row.start_s for row in self.rows]),
            "end_s": np.array([row.end_s for row in self.rows]),
            "model": np.array(self.card.name),
            "space_id": np.array(self.card.space_id),
        }
        with ZipFile(self.path, "w") as archive:  # np.savez takes no array called "file"
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, array, allow_pickle=False)


class Npy(_Arrays):
    """The matrix (N, D); NAME.npy.csv says which file and time each row is."""

    def finish(self) -> None:
        """Write the matrix."""
        with self.path.open("wb") as out:
            np.save(out, self.matrix())


class Jsonl(Table):
    """One JSON object a line, written as the rows come."""

    def __init__(self, path: Path, card: Card, n_values: int) -> None:
        super().__init__(path, card, n_values)
        self.out = path.open("w", encoding="utf-8")

    def add(self, row: Row) -> None:
        """Write one line."""
        line = {
            "file": row.file,
            "start_s": round(row.start_s, 6),
            "end_s": round(row.end_s, 6),
            "space_id": self.card.space_id,
            "embedding": row.embedding.tolist(),
        }
        self.out.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        """Write what is buffered."""
        self.out.flush()

    def release(self) -> None:
        """Close the file."""
        self.out.close()


class Parquet(Table):
    """Columns file, start_s, end_s, embedding; model and space id in the schema's metadata."""

    def __init__(self, path: Path, card: Card, n_values: int) -> None:
        super().__init__(path, card, n_values)
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise TableError(
                ".parquet needs pyarrow: pip install pyarrow, or choose .npz, .npy or .jsonl"
            ) from error
        self._arrow = pyarrow
        metadata = {"model": card.name, "space_id": card.space_id}
        self._schema = pyarrow.schema(
            [
                ("file", pyarrow.string()),
                ("start_s", pyarrow.float64()),
                ("end_s", pyarrow.float64()),
                ("embedding", pyarrow.list_(pyarrow.float32(), n_values)),
            ],
            metadata=metadata,
        )
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Keep the row, and write the group once it is full."""
        self._rows.append(row)
        if len(self._rows) == ROWS_IN_A_GROUP:
            self._flush()

    def finish(self) -> None:
        """Write the last group and the footer."""
        self._flush()
        self._writer.close()

    def release(self) -> None:
        """Close the file; it has been, if it was finished."""
        self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [
            [row.file for row in self._rows],
            [row.start_s for row in self._rows],
            [row.end_s for row in self._rows],
            self._arrow.FixedSizeListArray.from_arrays(
                np.concatenate([row.embedding for row in self._rows]), self.n_values
            ),
        ]
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        self._rows = []


FORMATS: dict[str, type[Table]] = {
    ".npz": Npz,
    ".npy": Npy,
    ".parquet": Parquet,
    ".jsonl": Jsonl,
}


@contextmanager
def writing(path: Path, card: Card, n_values: int | None = None) -> Iterator[Table]:
    """A table that appears as `path` when the block ends well, and not at all otherwise.

    Args:
        path: of the table.
        card: of the encoder.
        n_values: of a row's vector; None: all of a vector's.

    Raises:
        TableError: the suffix is none of `FORMATS`, the folder does not exist, or a library for the
            format is missing.
    """
    check_target(path, FORMATS)
    with replacing(path) as temporary:
        table = FORMATS[path.suffix](temporary, card, n_values or card.embed_dim)
        try:
            yield table
            table.finish()
        finally:
            table.release()
        if isinstance(table, Npy):
            _write_listing(table.rows, files_of(path)[1])


def files_of(path: Path) -> list[Path]:
    """The files that a table is written to: beside a matrix of .npy is what its rows are."""
    return [path, path.with_name(path.name + ".csv")] if path.suffix == ".npy" else [path]


def check_target(path: Path, suffixes: Iterable[str]) -> None:
    """Refuse a table that could not be written, before there is anything to write.

    Raises:
        TableError: the suffix is none of these, `path` is a folder, or its folder does not exist.
    """
    if path.suffix not in suffixes:
        raise TableError(
            f"{path} ends in {path.suffix!r}; expected one of {', '.join(suffixes)}. Vectors and "
            "labels are written to one table; viola index adds to collections in a folder"
        )
    if path.is_dir():
        raise TableError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise TableError(f"the folder of {path} does not exist")


def _write_listing(rows: list[Row], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["row", "file", "start_s", "end_s"])
        writer.writerows([i, cell(row.file), row.start_s, row.end_s] for i, row in enumerate(rows))
