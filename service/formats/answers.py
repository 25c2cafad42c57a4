"""Vectors -> the answer of a request: a JSON document, or the table of another format."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from urllib.parse import quote

from fastapi import Response
from pydantic import BaseModel

from models.card import Card
from models.quality import Quality
from models.runtime import Windows
from service.audio.files import Upload
from service.clips import Embedded
from service.errors import as_problem
from service.exceptions import Failure
from service.formats.pieces import JSON, Entry, list_response, respond, written
from service.formats.vectors import check_peaks, vector
from service.output_names import TABLES
from service.problems import Problem
from service.schemas import (
    EmbeddingList,
    FileEmbedding,
    ProblemDocument,
    QualityReport,
    Usage,
    WindowEmbedding,
)


def render(
    card: Card, uploads: Sequence[Upload], outcomes: Sequence[Embedded | Failure], output: str
) -> Response:
    """Write the answer; files may fail as long as one works and the output has room to say so.

    Raises:
        Problem: if no file worked, or one did not and the output is one array or table.
    """
    table = TABLES.get(output)
    check_outcomes(uploads, outcomes, all_must_work=table is not None)
    embedded = [item for item in outcomes if isinstance(item, Embedded)]
    if table is not None:
        content = table.write(card, [upload.name for upload in uploads], embedded)
        headers = _headers(card, embedded) | dict(content.headers)
        return respond(content.pieces, table.media_type, headers, content.n_bytes)
    check_peaks(embedded, output)
    head = EmbeddingList(model=card.name, space_id=card.space_id, data=[], usage=usage(outcomes))
    files = enumerate(zip(uploads, outcomes, strict=True))
    return list_response(head, (_entry(index, *file, output) for index, file in files))


def check_outcomes(
    uploads: Sequence[Upload], outcomes: Sequence[object], *, all_must_work: bool = False
) -> None:
    """Fail a request as a whole where none of its files worked.

    Raises:
        Problem: the first file's, with the others' beside it.
    """
    failed = [
        (index, as_problem(item))
        for index, item in enumerate(outcomes)
        if isinstance(item, Failure)
    ]
    if len(failed) == len(outcomes) or (failed and all_must_work):
        raise _whole(failed, uploads)


def all_embedded(outcomes: Sequence[Embedded | Failure], name: str) -> list[Embedded]:
    """The files of a request whose answer has no room for failures; `name` is what it calls them.

    Raises:
        Problem: the first file's that failed, with its place as `param`.
    """
    for index, item in enumerate(outcomes):
        if isinstance(item, Failure):
            problem, place = as_problem(item), f"{name}[{index}]"
            members = dict(problem.extensions) | {"param": place, "file_index": index}
            detail = f"{place}: {problem.detail}"
            raise Problem(problem.kind.slug, detail, headers=problem.headers, **members)
    return [item for item in outcomes if isinstance(item, Embedded)]


def json_response(answer: BaseModel) -> Response:
    """A short answer as JSON, its arrays as numbers."""
    return Response(written(answer), media_type=JSON)


def quality_report(quality: Quality | None, noticed: Sequence[str]) -> QualityReport | None:
    """The report, if the quality was measured; `noticed` is what decoding has warned of."""
    if quality is None:
        return None
    return QualityReport(**asdict(quality), warnings=[*noticed, *quality.warnings])


def usage(outcomes: Sequence[Embedded | Failure]) -> Usage:
    """What the files that worked came to."""
    embedded = [item for item in outcomes if isinstance(item, Embedded)]
    return Usage(
        audio_seconds=sum(item.duration_s for item in embedded),
        windows=sum(len(item.windows.start_s) for item in embedded if item.windows),
    )


def _entry(index: int, upload: Upload, outcome: Embedded | Failure, output: str) -> Entry:
    if isinstance(outcome, Failure):
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


def in_place(failure: Failure) -> ProblemDocument:
    """What is wrong with one file, in the place of its answer."""
    return ProblemDocument(**as_problem(failure).document())


def _windows(windows: Windows, output: str) -> Iterator[WindowEmbedding]:
    times = zip(windows.start_s.tolist(), windows.end_s.tolist(), windows.embedding, strict=True)
    for start, end, row in times:
        yield WindowEmbedding(start_s=start, end_s=end, embedding=vector(row, output))


def _headers(card: Card, embedded: Sequence[Embedded]) -> dict[str, str]:
    """Model, space and seconds, which a JSON answer has as members."""
    return {
        "Viola-Model": quote(card.name),  # a header holds no more than Latin-1
        "Viola-Space-Id": card.space_id,
        "Viola-Audio-Seconds": f"{sum(item.duration_s for item in embedded):.6f}",
    }


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
