"""A collection's vectors as a Parquet file, a NumPy array or a CSV, some rows at a time.

Letters: `N` windows, `D` embedding dim.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from service.collections.records import Collection, Item, Vectors
from service.collections.store import Store
from service.untrusted import cell

Export = Literal["parquet", "npy", "csv"]
EXPORTS: tuple[Export, ...] = get_args(Export)
ROWS = 1024  # windows that are read at a time, and in a row group of Parquet
COLUMNS = ("id", "file", "sha256", "duration_s", "start_s", "end_s", "metadata")


@dataclass(frozen=True)
class Part:
    """Some windows, and the items that they are of, by key."""

    windows: Vectors
    items: Mapping[int, Item]

    def rows(self) -> Iterator[tuple[str, str, str, float, float, float, str]]:
        """What is said of each window, in the order of `COLUMNS`."""
        windows = self.windows
        times = zip(
            windows.items.tolist(), windows.start_s.tolist(), windows.end_s.tolist(), strict=True
        )
        for key, start_s, end_s in times:
            item = self.items[key]
            metadata = json.dumps(dict(item.metadata), ensure_ascii=False)
            about = item.id, item.file or item.id, item.sha256, item.duration_s
            yield *about, start_s, end_s, metadata


def parts_of(store: Store, collection: Collection) -> Iterator[Part]:
    """All windows of a collection, some at a time, as they are when they are read.

    Raises:
        CollectionNotFound: it has been deleted, or moved to another model, before the last of them.
    """
    last = 0
    while len(windows := store.windows.page(collection, last, ROWS)):
        last = int(windows.windows[-1])
        items = store.items.by_key(collection, sorted(set(windows.items.tolist())))
        there = np.isin(windows.items, list(items))  # and not deleted meanwhile
        if there.any():
            yield Part(windows.where(there), items)
    store.collections.check(collection)


Write = Callable[[Collection, Iterator[Part]], Iterator[bytes]]


@dataclass(frozen=True)
class Form:
    """A form of export: its media type, how names of its files end, and what writes it."""

    media_type: str
    suffix: str
    write: Write


def parquet(collection: Collection, parts: Iterator[Part]) -> Iterator[bytes]:
    """Columns as `COLUMNS`, metadata as JSON, and embedding (D,); a part a row group.

    The schema's metadata hold `model` and `space_id`. `viola index` reads such a file.
    """
    import pyarrow as pa
    import pyarrow.parquet

    terms, sink = collection.terms, _Sink()
    texts = {"id": pa.string(), "file": pa.string(), "sha256": pa.string()}
    times = dict.fromkeys(("duration_s", "start_s", "end_s"), pa.float64())
    vector = pa.list_(pa.float32(), terms.dimensions)
    columns = texts | times | {"metadata": pa.string(), "embedding": vector}
    about = {"model": terms.model, "space_id": terms.space_id}
    schema = pa.schema(columns).with_metadata(about)
    with pa.PythonFile(sink, mode="w") as file:
        with pyarrow.parquet.ParquetWriter(file, schema) as writer:
            for part in parts:
                said = list(zip(*part.rows(), strict=True))
                values = pa.array(part.windows.vectors.ravel())
                vectors = pa.FixedSizeListArray.from_arrays(values, terms.dimensions)
                kinds = [columns[name] for name in COLUMNS]
                arrays = [pa.array(column, kind) for column, kind in zip(said, kinds, strict=True)]
                writer.write_batch(pa.record_batch([*arrays, vectors], schema=schema))
                yield sink.taken()
        file.flush()
        yield sink.taken()


def npy(collection: Collection, parts: Iterator[Part]) -> Iterator[bytes]:
    """One array (N, D) of float32, in the order of the rows of the other forms."""
    found = [part.windows.vectors for part in parts]
    none = np.empty((0, collection.terms.dimensions), "<f4")
    content = io.BytesIO()
    whole = np.concatenate([none, *found]).astype("<f4", copy=False)
    np.lib.format.write_array(content, whole, allow_pickle=False)
    yield content.getvalue()


def listing(collection: Collection, parts: Iterator[Part]) -> Iterator[bytes]:
    """What each row is of, without its vector."""
    yield _csv([COLUMNS])
    for part in parts:
        # metadata begins with a brace: no spreadsheet computes it
        yield _csv((cell(id), cell(file), *rest) for id, file, *rest in part.rows())


FORMS: Mapping[Export, Form] = {
    "parquet": Form("application/vnd.apache.parquet", "parquet", parquet),
    "npy": Form("application/x-npy", "npy", npy),
    "csv": Form("text/csv; charset=utf-8", "csv", listing),
}


def _csv(rows: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken; its position goes on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """How much has been written in all."""
        return self._position

    def write(self, content: Any) -> int:
        """Keep some bytes."""
        part = bytes(content)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def taken(self) -> bytes:
        """What has been written since the last time."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content
