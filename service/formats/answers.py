"""Vectors -> the bytes of an answer: JSON with numbers or base64, a NumPy array, an Arrow table."""

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import pairwise
from urllib.parse import quote

import numpy as np
from fastapi import Response
from numpy.typing import NDArray
from pydantic import BaseModel

from models.modelfile import Card, packed
from models.runtime import Windows
from service.audio.uploads import Upload
from service.engine import Embedded
from service.formats.accept import negotiated
from service.formats.arrow import ARROW, arrow_stream
from service.formats.pieces import JSON, Entry, Piece, list_response, respond, written
from service.parameters import Output
from service.problems import Problem, invalid_parameter
from service.schemas import (
    EmbeddingList,
    FileEmbedding,
    ProblemDocument,
    Usage,
    WindowEmbedding,
)

NPY = "application/x-npy"
MAX_HALF = 65_504.0  # the largest float16

_BY_TYPE: dict[str, Output] = {JSON: "json", NPY: "npy", ARROW: "arrow"}


def render(
    card: Card, uploads: Sequence[Upload], outcomes: Sequence[Embedded | Problem], output: Output
) -> Response:
    """Write the answer; files may fail as long as one works and the output has room to say so.

    Raises:
        Problem: if no file worked, or one did not and the output is one array or table.
    """
    check_outcomes(uploads, outcomes, all_must_work=output in ("npy", "arrow"))
    embedded = [item for item in outcomes if isinstance(item, Embedded)]
    if output == "npy":
        return _array(card, embedded)
    if output == "arrow":
        content = arrow_stream(card, uploads, embedded)
        return respond(content, ARROW, _headers(card, embedded))
    check_peaks(embedded, output)
    head = EmbeddingList(model=card.name, space_id=card.space_id, data=[], usage=usage(outcomes))
    files = enumerate(zip(uploads, outcomes, strict=True))
    return list_response(head, (_entry(index, *file, output) for index, file in files))


def check_outcomes(
    uploads: Sequence[Upload], outcomes: Sequence[object], *, all_must_work: bool = False
) -> None:
    """Let a request fail as a whole where none of its files worked.

    Raises:
        Problem: the first file's, with the others' beside it.
    """
    failed = [(i, item) for i, item in enumerate(outcomes) if isinstance(item, Problem)]
    if len(failed) == len(outcomes) or (failed and all_must_work):
        raise _whole(failed, uploads)


def all_embedded(outcomes: Sequence[Embedded | Problem], name: str) -> list[Embedded]:
    """The files of a request whose answer has no room for failures; `name` is what it calls them.

    Raises:
        Problem: the first file's that failed, with its place as `param`.
    """
    for index, item in enumerate(outcomes):
        if isinstance(item, Problem):
            place = f"{name}[{index}]"
            members = dict(item.extensions) | {"param": place, "file_index": index}
            detail = f"{place}: {item.detail}"
            raise Problem(item.kind.slug, detail, headers=item.headers, **members)
    return [item for item in outcomes if isinstance(item, Embedded)]


def json_response(answer: BaseModel) -> Response:
    """A short answer as JSON, its arrays as numbers."""
    return Response(written(answer), media_type=JSON)


def usage(outcomes: Sequence[Embedded | Problem]) -> Usage:
    """What the files that worked came to."""
    embedded = [item for item in outcomes if isinstance(item, Embedded)]
    return Usage(
        audio_seconds=sum(item.duration_s for item in embedded),
        windows=sum(len(item.windows.start_s) for item in embedded if item.windows),
    )


def _entry(index: int, upload: Upload, outcome: Embedded | Problem, output: Output) -> Entry:
    if isinstance(outcome, Problem):
        return Entry(FileEmbedding(index=index, file=upload.name, error=in_place(outcome)))
    file = FileEmbedding(
        index=index,
        file=upload.name,
        duration_s=outcome.duration_s,
        embedding=vector(outcome.embedding, output),
        warnings=list(outcome.warnings) or None,
    )
    windows = None if outcome.windows is None else _windows(outcome.windows, output)
    return Entry(file, windows)


def in_place(problem: Problem) -> ProblemDocument:
    """What is wrong with one file, in the place of its answer."""
    return ProblemDocument(**problem.document())


def _windows(windows: Windows, output: Output) -> Iterator[WindowEmbedding]:
    times = zip(windows.start_s.tolist(), windows.end_s.tolist(), windows.embedding, strict=True)
    for start, end, row in times:
        yield WindowEmbedding(start_s=start, end_s=end, embedding=vector(row, output))


def vector(row: NDArray[np.float32], output: Output) -> NDArray[np.float32] | str:
    """A vector (D,) as the answer holds it."""
    if output == "base64-f16":
        return _half(row)
    return packed(row) if output == "base64" else np.ascontiguousarray(row)


def _half(row: NDArray[np.float32]) -> str:
    """A vector (D,) as little-endian float16 in base64."""
    _check_peak(row)
    return base64.b64encode(row.astype("<f2").tobytes()).decode()


def check_peaks(embedded: Sequence[Embedded], output: Output) -> None:
    """Refuse vectors that the output cannot hold, before the first byte of the answer.

    Raises:
        Problem: for float16, which ends early.
    """
    if output == "base64-f16":
        for file in embedded:
            _check_peak(file.embedding)
            if file.windows is not None:
                _check_peak(file.windows.embedding)


def _check_peak(values: NDArray[np.float32]) -> None:
    if (peak := max(float(values.max()), -float(values.min()))) > MAX_HALF:
        reason = f"output=base64-f16 holds no value of {peak:g}: ask for output=base64."
        raise invalid_parameter("output", reason, value=peak, limit=MAX_HALF)


def preferred(accept: str) -> Output:
    """The output that an `Accept` header would rather have; JSON if it names none of them."""
    return _BY_TYPE[negotiated(accept, list(_BY_TYPE))]


def _array(card: Card, embedded: Sequence[Embedded]) -> Response:
    """One array (N, D): a row a file, or a row a window of the only file."""
    windows = embedded[0].windows
    rows = np.stack([item.embedding for item in embedded]) if windows is None else windows.embedding
    rows = np.ascontiguousarray(rows, "<f4")
    head = io.BytesIO()
    layout = {"descr": "<f4", "fortran_order": False, "shape": rows.shape}
    np.lib.format.write_array_header_1_0(head, layout)
    headers = _headers(card, embedded)
    if windows is not None:
        headers |= _timing_headers(windows)
    pieces: list[Piece] = [head.getvalue(), rows.data.cast("B")]
    return respond(iter(pieces), NPY, headers, sum(map(len, pieces)))


def _headers(card: Card, embedded: Sequence[Embedded]) -> dict[str, str]:
    """What the members of a JSON answer say."""
    return {
        "Viola-Model": quote(card.name),  # a header holds no more than Latin-1
        "Viola-Space-Id": card.space_id,
        "Viola-Audio-Seconds": f"{sum(item.duration_s for item in embedded):.6f}",
    }


def _timing_headers(windows: Windows) -> dict[str, str]:
    """Length of a window and step to the next, as they came out on the model's grid of frames."""
    window_s = windows.end_s[0] - windows.start_s[0]
    hop_s = next((after - before for before, after in pairwise(windows.start_s)), window_s)
    return {"Viola-Window-S": f"{window_s:.6f}", "Viola-Hop-S": f"{hop_s:.6f}"}


def _whole(failed: Sequence[tuple[int, Problem]], uploads: Sequence[Upload]) -> Problem:
    """The failure of a request: its first file's, beside it all files' if there are several."""
    members = [
        problem.document(file_index=index, file=uploads[index].name) for index, problem in failed
    ]
    index, first = failed[0]
    extensions = dict(first.extensions) | {"file_index": index, "file": uploads[index].name}
    if len(uploads) > 1:
        extensions["problems"] = members
    return Problem(first.kind.slug, str(first.detail), headers=first.headers, **extensions)
