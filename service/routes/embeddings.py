"""`POST /v1/audio/embeddings`: audio files -> vectors."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.audio.uploads import Body
from service.context import Context, Shared
from service.dimensions import check_dimensions, shorten
from service.engine import Windowing
from service.exchange import embed, exchange
from service.formats.answers import NPY, preferred, render
from service.formats.arrow import ARROW
from service.openapi import Responses, audio_body, problem_responses
from service.parameters import EmbeddingParameters
from service.problems import AUDIO_PROBLEMS, Problem, invalid_parameter
from service.schemas import EmbeddingList
from service.streams.lines import EVENTS, NDJSON, answer_in_lines, misplaced, streamed_as
from service.streams.streaming import Plan, describe_vectors
from service.telemetry.timing import Timing
from service.traffic.access import needs_key
from service.traffic.patience import in_thread

router = APIRouter(tags=["embeddings"])

_ANSWERS: Responses = {
    200: {
        "model": EmbeddingList,
        "description": "A vector for each file, in the order of the files. Where several were sent "
        "and some cannot be used, those carry an `error` instead.",
        "content": {
            NPY: {"schema": {"type": "string", "format": "binary"}},
            ARROW: {"schema": {"type": "string", "format": "binary"}},
            NDJSON: {"schema": {"type": "string"}},
            EVENTS: {"schema": {"type": "string"}},
        },
    }
}


@router.post(
    "/v1/audio/embeddings",
    summary="Embed audio files",
    responses=_ANSWERS | problem_responses(AUDIO_PROBLEMS),
    openapi_extra=audio_body(),
)
@needs_key("embed", metered=True)
async def embed_audio(
    request: Request, shared: Shared, query: Annotated[EmbeddingParameters, Query()]
) -> Response:
    """Turn each file of a form, or the body itself, into one vector; on request also its windows.

    Any sample rate and number of channels: the audio is mixed down and resampled to 16 kHz.
    """
    if form := streamed_as(request, query.stream):
        return await answer_in_lines(request, shared, query, partial(_plan, shared), form)

    async def answer(body: Body, asked: EmbeddingParameters, timing: Timing) -> Response:
        if asked.stream:
            raise misplaced()
        encoder = shared.catalogue.get(asked.model).encoder
        check_dimensions(asked.dimensions, encoder.card)
        windowing = Windowing.of(asked.window_s, asked.hop_s, encoder.card)
        output = asked.output or preferred(request.headers.get("accept", ""))
        if windowing and output == "npy" and len(body.uploads) > 1:
            raise _one_file_only(len(body.uploads))
        outcomes = await embed(
            request, shared, encoder, body, windowing, timing, selection=asked.selection
        )
        outcomes = await in_thread(shorten, outcomes, asked.dimensions)
        with timing.stage("render"):
            return await in_thread(render, encoder.card, body.uploads, outcomes, output)

    return await exchange(request, shared, query, answer)


def _plan(shared: Context, asked: EmbeddingParameters) -> Plan:
    if asked.output in ("npy", "arrow"):
        reason = (
            f"output={asked.output} is one table and cannot be streamed: ask for json or base64."
        )
        raise invalid_parameter("output", reason, value=asked.output)
    model = shared.catalogue.get(asked.model)
    check_dimensions(asked.dimensions, model.encoder.card)
    windowing = Windowing.of(asked.window_s, asked.hop_s, model.encoder.card)
    describe = describe_vectors(asked)
    return Plan(model, "embedding", windowing, describe, selection=asked.selection)


def _one_file_only(n_files: int) -> Problem:
    reason = (
        "output=npy holds one file's windows: send one file, or ask for output=arrow or base64."
    )
    return invalid_parameter("output", reason, value=f"npy with {n_files} files")
