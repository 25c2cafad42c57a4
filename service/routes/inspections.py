"""`POST /v1/audio/inspect`: would these files be accepted? Nothing is inferred."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from models.runtime import Encoder
from service.audio.files import Upload
from service.context import Shared
from service.exchange import costs, exchange
from service.formats.answers import in_place, json_response, quality_report
from service.inference.catalogue import Served
from service.inference.windowing import Windowing
from service.inspections import DECODED, HEADERS_ALONE, Inspected, inspect
from service.openapi import Responses, audio_body, problem_responses
from service.parameters import InspectionParameters
from service.problem_types import REQUEST_PROBLEMS
from service.schemas import FileInspection, InspectionList, Usage
from service.telemetry.timing import Timing
from service.traffic.access import needs_key
from service.uploads.body import Body

router = APIRouter(tags=["limits"])

_ANSWERS: Responses = {
    200: {
        "model": InspectionList,
        "description": "What each file claims to be and whether it would be accepted, in the order "
        "of the files; `error` is what it would be refused for.",
    }
}


@router.post(
    "/v1/audio/inspect",
    summary="Would audio files be accepted?",
    responses=_ANSWERS | problem_responses(REQUEST_PROBLEMS),
    openapi_extra=audio_body(),
)
@needs_key("embed", metered=True, takes_place=True)
async def inspect_audio(
    request: Request, shared: Shared, query: Annotated[InspectionParameters, Query()]
) -> Response:
    """Look at the headers of each file of a form, or of the body itself; nothing is inferred.

    With `decode=true` the streams are decoded as well, and each accepted file has a quality report.
    """

    async def answer(body: Body, asked: InspectionParameters, timing: Timing) -> Response:
        model = shared.catalogue.model(asked.model)
        windowing = Windowing.of(asked.window_s, asked.hop_s, model.network.card)
        with timing.stage("decode"):
            # Decoding costs what it costs elsewhere, whatever the verdict; headers cost nothing
            inspected = await inspect(
                shared.engine,
                body.uploads,
                windowing,
                costs(request, shared),
                asked.selection,
                decode=asked.decode,
            )
        with timing.stage("render"):
            return _render(model, body.uploads, inspected, is_decoded=asked.decode)

    return await exchange(request, shared, query, answer)


def _render(
    model: Served[Encoder],
    uploads: Sequence[Upload],
    inspected: Sequence[Inspected],
    *,
    is_decoded: bool,
) -> Response:
    accepted = [file for file in inspected if file.failure is None]
    files = enumerate(zip(uploads, inspected, strict=True))
    return json_response(
        InspectionList(
            model=model.name,
            space_id=model.space_id,
            is_decoded=is_decoded,
            note=DECODED if is_decoded else HEADERS_ALONE,
            data=[_file(index, upload, found) for index, (upload, found) in files],
            usage=Usage(
                audio_seconds=sum(file.duration_s or 0.0 for file in accepted),
                windows=sum(file.windows or 0 for file in accepted),
            ),
        )
    )


def _file(index: int, upload: Upload, found: Inspected) -> FileInspection:
    header = found.header
    return FileInspection(
        index=index,
        file=upload.name,
        is_accepted=found.failure is None,
        container=header and header.container,
        codec=header and header.codec,
        sample_rate=header and header.sample_rate,
        channels=header and header.channels,
        is_duration_known=found.duration_s is not None,
        duration_s=found.duration_s,
        windows=found.windows,
        quality=quality_report(found.quality, found.warnings),
        warnings=list(found.warnings) or None,
        error=found.failure and in_place(found.failure),
    )
