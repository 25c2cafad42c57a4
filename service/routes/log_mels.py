"""`POST /v1/audio/log-mels`: audio files -> the pictures that an encoder sees of them."""

import base64
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from models.limits import AudioError
from models.runtime import Encoder
from service.audio.files import Upload
from service.clips import Clip
from service.context import Context, Shared
from service.exceptions import Failure, ServiceError
from service.exchange import decode, exchange
from service.formats.answers import check_outcomes, in_place, json_response
from service.inference.catalogue import Served
from service.inference.log_mels import HIGH, HOP, LOW, Picture, log_mel
from service.openapi import Responses, audio_body, problem_responses
from service.parameters import LogMelParameters
from service.problem_types import AUDIO_PROBLEMS
from service.problems import Problem
from service.schemas import FileLogMel, LogMelList, Usage
from service.telemetry.timing import Timing
from service.traffic.access import needs_key
from service.uploads.body import Body

router = APIRouter(tags=["embeddings"])

_ANSWERS: Responses = {
    200: {
        "model": LogMelList,
        "description": "A picture for each file, in the order of the files. Where several were "
        "sent and some cannot be used, those carry an `error` instead.",
    }
}


@router.post(
    "/v1/audio/log-mels",
    summary="Draw what the model sees",
    responses=_ANSWERS | problem_responses(AUDIO_PROBLEMS),
    openapi_extra=audio_body(),
)
@needs_key("embed", metered=True, takes_place=True)
async def draw_audio(
    request: Request, shared: Shared, query: Annotated[LogMelParameters, Query()]
) -> Response:
    """The log-mel spectrogram of each file, as the model's own first layers compute it.

    A column of bytes every 10 ms, the lowest band first. Ask for the part that is to be seen, with
    `start_s` and `end_s`.
    """

    async def answer(body: Body, asked: LogMelParameters, timing: Timing) -> Response:
        model = shared.catalogue.model(asked.model)
        if not model.network.gives_log_mel:
            detail = f"The file of {model.name} does not give its log-mel: export it again."
            raise Problem("not-found", detail)
        prepared = await decode(request, shared, body, timing, selection=asked.selection)
        with timing.stage("infer"):
            drawn = [await _drawn(shared, model.network, item) for item in prepared]
        with timing.stage("render"):
            return _render(model, body.uploads, prepared, drawn)

    return await exchange(request, shared, query, answer)


async def _drawn(shared: Context, encoder: Encoder, item: Clip | Failure) -> Picture | Failure:
    """A file's picture; a file that fails stops none of the others."""
    if not isinstance(item, Clip):
        return item
    try:
        return await log_mel(shared.engine.batcher, encoder, item.samples)
    except ServiceError as error:
        return error


def _render(
    model: Served[Encoder],
    uploads: Sequence[Upload],
    prepared: Sequence[Clip | Failure],
    drawn: Sequence[Picture | Failure],
) -> Response:
    check_outcomes(uploads, drawn)
    files = enumerate(zip(uploads, prepared, drawn, strict=True))
    return json_response(
        LogMelList(
            model=model.name,
            space_id=model.space_id,
            hop_s=HOP / model.network.card.sample_rate,
            low=LOW,
            high=HIGH,
            data=[_file(index, *file) for index, file in files],
            usage=Usage(
                audio_seconds=sum(clip.duration_s for clip in prepared if isinstance(clip, Clip)),
                windows=0,
            ),
        )
    )


def _file(index: int, upload: Upload, clip: Clip | Failure, drawn: Picture | Failure) -> FileLogMel:
    if isinstance(drawn, AudioError | ServiceError):
        return FileLogMel(index=index, file=upload.name, error=in_place(drawn))
    assert isinstance(clip, Clip)
    n_frames, n_bands = drawn.shape
    return FileLogMel(
        index=index,
        file=upload.name,
        duration_s=clip.duration_s,
        start_s=clip.start_s,
        n_frames=n_frames,
        n_bands=n_bands,
        log_mel=base64.b64encode(drawn.tobytes()).decode(),
        warnings=list(clip.warnings) or None,
    )
