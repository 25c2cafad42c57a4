"""`POST /v1/audio/classifications`: audio files -> labels with scores."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from models.runtime import Windows
from service.audio.uploads import Body, Upload
from service.context import Context, Shared
from service.engine import Embedded, Windowing
from service.exchange import embed, exchange
from service.formats.answers import check_outcomes, in_place, usage
from service.formats.pieces import Entry, list_response
from service.inference.catalogue import Served, ServedHead
from service.inference.scoring import Scored, describe, score
from service.openapi import Responses, audio_body, problem_responses
from service.parameters import ClassificationParameters
from service.problems import AUDIO_PROBLEMS, HEAD_PROBLEMS, Problem, invalid_parameter
from service.schemas import ClassificationList, FileClassification, WindowClassification
from service.streams.lines import EVENTS, NDJSON, answer_in_lines, misplaced, streamed_as
from service.streams.streaming import Plan, describe_predictions
from service.telemetry.timing import Timing
from service.traffic.access import needs_key
from service.traffic.patience import in_thread

router = APIRouter(tags=["classifications"])

_ANSWERS: Responses = {
    200: {
        "model": ClassificationList,
        "description": "Labels for each file, in the order of the files. Where several were sent "
        "and some cannot be used, those carry an `error` instead.",
        "content": dict.fromkeys((NDJSON, EVENTS), {"schema": {"type": "string"}}),
    }
}


@router.post(
    "/v1/audio/classifications",
    summary="Classify audio files",
    responses=_ANSWERS | problem_responses([*AUDIO_PROBLEMS, *HEAD_PROBLEMS]),
    openapi_extra=audio_body(),
)
@needs_key("classify", metered=True)
async def classify_audio(
    request: Request, shared: Shared, query: Annotated[ClassificationParameters, Query()]
) -> Response:
    """Label each file of a form, or the body itself; on request also each of its windows.

    Scores are calibrated probabilities unless `function_to_apply` says otherwise. `novelty` tells
    inputs unlike anything the classifier was trained on; its predictions are then worth nothing.
    """
    if form := streamed_as(request, query.stream):
        return await answer_in_lines(request, shared, query, partial(_plan, shared), form)

    async def answer(body: Body, asked: ClassificationParameters, timing: Timing) -> Response:
        if asked.stream:
            raise misplaced()
        model, head = shared.catalogue.pair(asked.model, asked.head)
        windowing = _windowing(asked, model, head)
        outcomes = await embed(
            request, shared, model.encoder, body, windowing, timing, selection=asked.selection
        )
        with timing.stage("classify"):
            scored = await shared.engine.infer(partial(score, [head.classifier], outcomes))
        with timing.stage("render"):
            return await in_thread(_render, model, head, body.uploads, outcomes, scored, asked)

    return await exchange(request, shared, query, answer)


def _plan(shared: Context, asked: ClassificationParameters) -> Plan:
    model, head = shared.catalogue.pair(asked.model, asked.head)
    windowing = _windowing(asked, model, head)
    describe = describe_predictions(head, asked)
    return Plan(model, "classification", windowing, describe, selection=asked.selection)


def _windowing(
    asked: ClassificationParameters, model: Served, head: ServedHead
) -> Windowing | None:
    """Windows as asked for, by default as long as the clips that the classifier learnt from."""
    if asked.granularity == "window":
        window_s = asked.window_s or head.classifier.card.training.unit_s
        return Windowing.of(window_s, asked.hop_s, model.encoder.card)
    for name, value in (("window_s", asked.window_s), ("hop_s", asked.hop_s)):
        if value is not None:
            reason = f"{name} needs granularity=window: a clip is classified as a whole."
            raise invalid_parameter(name, reason, value=value)
    return None


def _render(
    model: Served,
    head: ServedHead,
    uploads: Sequence[Upload],
    outcomes: Sequence[Embedded | Problem],
    scored: Sequence[list[Scored] | Problem],
    asked: ClassificationParameters,
) -> Response:
    check_outcomes(uploads, scored)
    answer = ClassificationList(
        model=model.name,
        head=head.name,
        space_id=head.space_id,
        data=[],
        usage=usage(outcomes),
    )
    files = enumerate(zip(uploads, outcomes, scored, strict=True))
    return list_response(answer, (_file(index, *file, asked) for index, file in files))


def _file(
    index: int,
    upload: Upload,
    embedded: Embedded | Problem,
    scored: list[Scored] | Problem,
    asked: ClassificationParameters,
) -> Entry:
    if isinstance(scored, Problem):
        return Entry(FileClassification(index=index, file=upload.name, error=in_place(scored)))
    assert isinstance(embedded, Embedded)
    (one,) = scored
    whole = describe(one, 0, asked)
    file = FileClassification(
        index=index,
        file=upload.name,
        duration_s=embedded.duration_s,
        predictions=whole.predictions,
        novelty=whole.novelty,
        warnings=list(embedded.warnings) or None,
    )
    return Entry(file, _windows(embedded, one, asked))


def _windows(
    embedded: Embedded, scored: Scored, asked: ClassificationParameters
) -> Iterator[WindowClassification] | None:
    return None if embedded.windows is None else _described(embedded.windows, scored, asked)


def _described(
    windows: Windows, scored: Scored, asked: ClassificationParameters
) -> Iterator[WindowClassification]:
    times = zip(windows.start_s.tolist(), windows.end_s.tolist(), strict=True)
    for row, (start_s, end_s) in enumerate(times, start=1):
        one = describe(scored, row, asked)
        yield WindowClassification(
            start_s=start_s, end_s=end_s, predictions=one.predictions, novelty=one.novelty
        )
