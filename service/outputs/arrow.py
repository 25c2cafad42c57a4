"""Vectors -> an Arrow IPC stream: a row a file, or a row a window. Letters: `D` embedding dim."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Card
from service.clips import Embedded
from service.output import Table, Written

BATCH_ROWS = 64

Times = NDArray[np.float64]


def _stream(
    card: Card, names: Sequence[str | None], embedded: Sequence[Embedded]
) -> Iterator[bytes]:
    """Columns `index`, `file`, `start_s`, `end_s`, `embedding` (D,); a batch has `BATCH_ROWS` rows.

    The schema's metadata hold `model`, `space_id` and `audio_seconds`.
    """
    import pyarrow as pa  # takes time and memory that only this answer needs

    embed_dim = embedded[0].embedding.shape[-1]
    audio_seconds = sum(file.duration_s for file in embedded)
    metadata = {
        "model": card.name,
        "space_id": card.space_id,
        "audio_seconds": f"{audio_seconds:.6f}",
    }
    columns = {
        "index": pa.int32(),
        "file": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "embedding": pa.list_(pa.float32(), embed_dim),
    }
    schema = pa.schema(columns).with_metadata(metadata)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as stream:
        for index, (name, file) in enumerate(zip(names, embedded, strict=True)):
            for start_s, end_s, vectors in _batches(*_times(file)):
                n, values = len(start_s), pa.array(np.ascontiguousarray(vectors, "<f4").ravel())
                column = pa.FixedSizeListArray.from_arrays(values, embed_dim)
                parts = [np.full(n, index, np.int32), [name] * n, start_s, end_s, column]
                arrays = [
                    pa.array(part, kind) for part, kind in zip(parts, schema.types, strict=True)
                ]
                stream.write_batch(pa.record_batch(arrays, schema=schema))
                yield _taken(sink)
    yield _taken(sink)


def _batches(*columns: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
    for first in range(0, len(columns[0]), BATCH_ROWS):
        yield [column[first : first + BATCH_ROWS] for column in columns]


def _taken(sink: io.BytesIO) -> bytes:
    """What has been written since the last time."""
    content = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return content


def _times(file: Embedded) -> tuple[Times, Times, NDArray[np.float32]]:
    """Starts and ends in seconds (N,) and vectors (N, D) of a file's windows, or of the whole."""
    if file.windows is not None:
        return file.windows.start_s, file.windows.end_s, file.windows.embedding
    return np.zeros(1), np.array([file.duration_s]), file.embedding[None]


FORMAT = Table(
    name="arrow",
    about="an Arrow IPC stream of files or windows",
    media_type="application/vnd.apache.arrow.stream",
    write=lambda card, names, embedded: Written(_stream(card, names, embedded)),
)
