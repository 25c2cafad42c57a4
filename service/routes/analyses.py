"""`POST /v1/audio/analyze`: audio files -> all that is known of them, from one decode."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from models.runtime import Encoder
from service.audio.files import Upload
from service.clips import Embedded
from service.context import Shared
from service.exceptions import Failure
from service.exchange import embed, exchange, n_vectors, rendered
from service.formats.answers import check_outcomes, in_place, quality_report, usage
from service.formats.pieces import Entry, list_response
from service.formats.vectors import check_peaks, vector
from service.inference.catalogue import Served
from service.inference.scoring import Scored, describe, score
from service.inference.windowing import Windowing
from service.openapi import Responses, audio_body, problem_responses
from service.parameters import AnalysisParameters
from service.problem_types import AUDIO_PROBLEMS, CLASSIFIER_PROBLEMS
from service.schemas import AnalysisList, FileAnalysis, WindowAnalysis
from service.telemetry.timing import Timing
from service.traffic.access import needs_key
from service.uploads.body import Body

router = APIRouter(tags=["classifications"])

_ANSWERS: Responses = {
    200: {
        "model": AnalysisList,
        "description": "The vector of each file and what each classifier says of it, in the order "
        "of the files. Where several were sent and some cannot be used, those carry an `error` "
        "instead.",
    }
}


@router.post(
    "/v1/audio/analyze",
    summary="Embed and classify audio files",
    responses=_ANSWERS | problem_responses([*AUDIO_PROBLEMS, *CLASSIFIER_PROBLEMS]),
    openapi_extra=audio_body(),
)
@needs_key("embed", "classify", metered=True, takes_place=True)
async def analyze_audio(
    request: Request, shared: Shared, query: Annotated[AnalysisParameters, Query()]
) -> Response:
    """Embed each file of a form, or the body itself, and label it with every classifier that fits.

    The same numbers as `/v1/audio/embeddings` and `/v1/audio/classifications`, for one upload;
    beside them what was measured of the recording as it came.
    """

    async def answer(body: Body, asked: AnalysisParameters, timing: Timing) -> Response:
        catalogue = await shared.catalogue_of(request.state.caller, asked.heads)
        if asked.heads:
            model, classifiers = catalogue.choose(asked.model, asked.heads)
        else:
            model = catalogue.model(asked.model)
            classifiers = catalogue.classifiers_of(model)
        classifiers = sorted(classifiers, key=lambda classifier: classifier.name)
        windowing = Windowing.of(asked.window_s, asked.hop_s, model.network.card)
        outcomes = await embed(
            request,
            shared,
            model.network,
            body,
            windowing,
            timing,
            selection=asked.selection,
            measured=True,
        )
        with timing.stage("classify"):
            networks = [classifier.network for classifier in classifiers]
            scored = await shared.engine.infer(partial(score, networks, outcomes))
        given = model, body.uploads, outcomes, scored, asked
        return await rendered(timing, n_vectors(outcomes), _render, *given)

    return await exchange(request, shared, query, answer)


def _render(
    model: Served[Encoder],
    uploads: Sequence[Upload],
    outcomes: Sequence[Embedded | Failure],
    scored: Sequence[list[Scored] | Failure],
    asked: AnalysisParameters,
) -> Response:
    check_outcomes(uploads, scored)
    check_peaks([item for item in outcomes if isinstance(item, Embedded)], asked.output)
    head = AnalysisList(model=model.name, space_id=model.space_id, data=[], usage=usage(outcomes))
    files = enumerate(zip(uploads, outcomes, scored, strict=True))
    return list_response(head, (_file(index, *file, asked) for index, file in files))


def _file(
    index: int,
    upload: Upload,
    embedded: Embedded | Failure,
    scored: list[Scored] | Failure,
    asked: AnalysisParameters,
) -> Entry:
    """What is known of one file: each kind of knowledge is a member of its own."""
    if isinstance(scored, Failure):
        return Entry(FileAnalysis(index=index, file=upload.name, error=in_place(scored)))
    assert isinstance(embedded, Embedded)
    file = FileAnalysis(
        index=index,
        file=upload.name,
        duration_s=embedded.duration_s,
        embedding=vector(embedded.embedding, asked.output),
        classifications=[describe(one, 0, asked) for one in scored],
        quality=quality_report(embedded.quality, embedded.warnings),
        warnings=list(embedded.warnings) or None,
    )
    return Entry(file, _windows(embedded, scored, asked))


def _windows(
    embedded: Embedded, scored: Sequence[Scored], asked: AnalysisParameters
) -> Iterator[WindowAnalysis] | None:
    windows = embedded.windows
    if windows is None:
        return None
    times = zip(windows.start_s.tolist(), windows.end_s.tolist(), windows.embedding, strict=True)
    return (
        WindowAnalysis(
            start_s=start_s,
            end_s=end_s,
            embedding=vector(embedding, asked.output),
            classifications=[describe(one, row, asked) for one in scored],
        )
        for row, (start_s, end_s, embedding) in enumerate(times, start=1)
    )
