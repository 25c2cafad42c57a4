"""Vectors -> an Arrow IPC stream: a row a file, or a row a window. Letters: `D` embedding dim."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.modelfile import Card
from service.audio.uploads import Upload
from service.engine import Embedded

ARROW = "application/vnd.apache.arrow.stream"

Times = NDArray[np.float64]


def arrow_stream(card: Card, uploads: Sequence[Upload], embedded: Sequence[Embedded]) -> bytes:
    """Columns `index`, `file`, `start_s`, `end_s` and `embedding` (D,), as one record batch.

    The schema's metadata hold `model`, `space_id` and `audio_seconds`.
    """
    import pyarrow as pa  # takes time and memory that only this answer needs

    parts = [_times(file) for file in embedded]
    counts = [len(start_s) for start_s, _, _ in parts]
    start_s, end_s, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = [upload.name for upload, n in zip(uploads, counts, strict=True) for _ in range(n)]
    values = pa.array(np.ascontiguousarray(vectors, "<f4").ravel())
    columns = {
        "index": pa.array(np.repeat(np.arange(len(counts), dtype=np.int32), counts)),
        "file": pa.array(names, pa.string()),
        "start_s": pa.array(start_s),
        "end_s": pa.array(end_s),
        "embedding": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
    }
    audio_seconds = sum(file.duration_s for file in embedded)
    metadata = {
        "model": card.name,
        "space_id": card.space_id,
        "audio_seconds": f"{audio_seconds:.6f}",
    }
    batch = pa.record_batch(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _times(file: Embedded) -> tuple[Times, Times, NDArray[np.float32]]:
    """Starts and ends in seconds (N,) and vectors (N, D) of a file's windows, or of the whole."""
    if file.windows is not None:
        return file.windows.start_s, file.windows.end_s, file.windows.embedding
    return np.zeros(1), np.array([file.duration_s]), file.embedding[None]
