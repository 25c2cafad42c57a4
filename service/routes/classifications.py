"""`POST /v1/audio/classifications`: audio files, or vectors of them -> labels with scores."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from models.classifier import Classifier
from models.runtime import Encoder, Windows
from service.audio.files import Upload
from service.clips import Embedded
from service.context import Context, Shared
from service.exceptions import Failure
from service.exchange import embed, exchange, exchange_with, n_vectors, rendered
from service.formats.answers import check_outcomes, in_place, usage
from service.formats.given_vectors import (
    VectorBody,
    VectorsRequest,
    is_vectors,
    read_vectors,
)
from service.formats.pieces import Entry, list_response
from service.inference.catalogue import Served
from service.inference.scoring import Scored, describe, score, score_vectors
from service.openapi import Responses, audio_body, problem_responses
from service.parameters import ClassificationParameters
from service.problem_types import AUDIO_PROBLEMS, CLASSIFIER_PROBLEMS
from service.problems import Problem
from service.schemas import ClassificationList, FileClassification, WindowClassification
from service.streams.lines import LINES, answer_in_lines, misplaced, streamed_as
from service.streams.plans import plan_predictions, windowing_of
from service.telemetry.timing import Timing
from service.threads import in_thread
from service.traffic.access import needs_key
from service.untrusted import printable
from service.uploads.body import Body

router = APIRouter(tags=["classifications"])

_ANSWERS: Responses = {
    200: {
        "model": ClassificationList,
        "description": "Labels for each file, in the order of the files. Where several were sent "
        "and some cannot be used, those carry an `error` instead.",
        "content": LINES,
    }
}


@router.post(
    "/v1/audio/classifications",
    summary="Classify audio files",
    responses=_ANSWERS | problem_responses([*AUDIO_PROBLEMS, *CLASSIFIER_PROBLEMS]),
    openapi_extra=audio_body(VectorsRequest),
)
@needs_key("classify", metered=True, takes_place=True)
async def classify_audio(
    request: Request, shared: Shared, query: Annotated[ClassificationParameters, Query()]
) -> Response:
    """Label each file of a form, or the body itself; on request also each of its windows.

    Scores are calibrated probabilities unless `function_to_apply` says otherwise. `novelty` tells
    inputs unlike anything the classifier was trained on; its predictions are then worth nothing.

    Vectors that one has already are labelled without their audio: as JSON, with their `space_id`.
    """
    if is_vectors(request):
        label = partial(_label_vectors, request, shared)
        return await exchange_with(read_vectors, request, shared, query, label)
    if form := streamed_as(request, query.stream):
        plan = partial(plan_predictions, shared, request.state.caller)
        return await answer_in_lines(request, shared, query, plan, form)

    async def answer(body: Body, asked: ClassificationParameters, timing: Timing) -> Response:
        if asked.stream:
            raise misplaced()
        catalogue = await shared.catalogue_of(request.state.caller, asked.heads)
        model, classifiers = catalogue.choose(asked.model, asked.heads)
        windowing = windowing_of(asked, model, classifiers[0])
        outcomes = await embed(
            request, shared, model.network, body, windowing, timing, selection=asked.selection
        )
        with timing.stage("classify"):
            networks = [classifier.network for classifier in classifiers]
            scored = await shared.engine.infer(partial(score, networks, outcomes))
        given = model, classifiers, body.uploads, outcomes, scored, asked
        return await rendered(timing, n_vectors(outcomes), _render, *given)

    return await exchange(request, shared, query, answer)


async def _label_vectors(
    request: Request,
    shared: Context,
    body: VectorBody,
    asked: ClassificationParameters,
    timing: Timing,
) -> Response:
    """What classifiers say of vectors that came as such."""
    catalogue = await shared.catalogue_of(request.state.caller, asked.heads)
    named = asked.model
    if named is None and not asked.heads:
        named = catalogue.of_space(body.space_id).name
    model, classifiers = catalogue.choose(named, asked.heads)
    if model.space_id != body.space_id:
        raise Problem(
            "space-mismatch",
            f"The vectors are said to lie in space {printable(body.space_id)!r}; "
            f"{classifiers[0].name} takes those of space {model.space_id}. Embed the audio with "
            f"{model.name}.",
            param="space_id",
        )
    vectors = await in_thread(body.vectors, model.network.card.embed_dim)
    with timing.stage("classify"):
        networks = [classifier.network for classifier in classifiers]
        scored = await shared.engine.infer(partial(score_vectors, networks, vectors))
    rows = (Entry(_labelled(scored, row, asked)) for row in range(len(vectors)))
    head = _answer(model, classifiers, [])
    return await rendered(timing, len(vectors), list_response, head, rows)


def _labelled(
    scored: Sequence[Scored], row: int, asked: ClassificationParameters
) -> FileClassification:
    return FileClassification(index=row, **_said(scored, row, asked))


def _said(scored: Sequence[Scored], row: int, asked: ClassificationParameters) -> dict[str, Any]:
    """What one classifier says of a row, or each of several, as members of an answer."""
    each = [describe(one, row, asked) for one in scored]
    if len(each) > 1:
        return {"classifications": each}
    return {"predictions": each[0].predictions, "novelty": each[0].novelty}


def _answer(
    model: Served[Encoder],
    classifiers: Sequence[Served[Classifier]],
    outcomes: Sequence[Embedded | Failure],
) -> ClassificationList:
    names = [classifier.name for classifier in classifiers]
    return ClassificationList(
        model=model.name,
        head=names[0] if len(names) == 1 else None,
        heads=names if len(names) > 1 else None,
        space_id=model.space_id,
        data=[],
        usage=usage(outcomes),
    )


def _render(
    model: Served[Encoder],
    classifiers: Sequence[Served[Classifier]],
    uploads: Sequence[Upload],
    outcomes: Sequence[Embedded | Failure],
    scored: Sequence[list[Scored] | Failure],
    asked: ClassificationParameters,
) -> Response:
    check_outcomes(uploads, scored)
    files = enumerate(zip(uploads, outcomes, scored, strict=True))
    answer = _answer(model, classifiers, outcomes)
    return list_response(answer, (_file(index, *file, asked) for index, file in files))


def _file(
    index: int,
    upload: Upload,
    embedded: Embedded | Failure,
    scored: list[Scored] | Failure,
    asked: ClassificationParameters,
) -> Entry:
    if isinstance(scored, Failure):
        return Entry(FileClassification(index=index, file=upload.name, error=in_place(scored)))
    assert isinstance(embedded, Embedded)
    file = FileClassification(
        index=index,
        file=upload.name,
        duration_s=embedded.duration_s,
        warnings=list(embedded.warnings) or None,
        **_said(scored, 0, asked),
    )
    return Entry(file, _windows(embedded, scored, asked))


def _windows(
    embedded: Embedded, scored: Sequence[Scored], asked: ClassificationParameters
) -> Iterator[WindowClassification] | None:
    return None if embedded.windows is None else _described(embedded.windows, scored, asked)


def _described(
    windows: Windows, scored: Sequence[Scored], asked: ClassificationParameters
) -> Iterator[WindowClassification]:
    times = zip(windows.start_s.tolist(), windows.end_s.tolist(), strict=True)
    for row, (start_s, end_s) in enumerate(times, start=1):
        yield WindowClassification(start_s=start_s, end_s=end_s, **_said(scored, row, asked))
