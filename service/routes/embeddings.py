"""`POST /v1/audio/embeddings`: audio files -> vectors."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.context import Shared
from service.dimensions import check_dimensions, shorten
from service.exchange import embed, exchange, n_vectors, rendered
from service.formats.accept import preferred
from service.formats.answers import render
from service.inference.windowing import Windowing
from service.openapi import Responses, audio_body, problem_responses
from service.output_names import TABLES
from service.parameters import EmbeddingParameters
from service.problem_types import AUDIO_PROBLEMS
from service.problems import Problem, invalid_parameter
from service.schemas import EmbeddingList
from service.streams.lines import LINES, answer_in_lines, misplaced, streamed_as
from service.streams.plans import plan_vectors
from service.telemetry.timing import Timing
from service.traffic.access import needs_key
from service.uploads.body import Body

router = APIRouter(tags=["embeddings"])

_ANSWERS: Responses = {
    200: {
        "model": EmbeddingList,
        "description": "A vector for each file, in the order of the files. Where several were sent "
        "and some cannot be used, those carry an `error` instead.",
        "content": {
            **{
                table.media_type: {"schema": {"type": "string", "format": "binary"}}
                for table in TABLES.values()
            },
            **LINES,
        },
    }
}


@router.post(
    "/v1/audio/embeddings",
    summary="Embed audio files",
    responses=_ANSWERS | problem_responses(AUDIO_PROBLEMS),
    openapi_extra=audio_body(),
)
@needs_key("embed", metered=True, takes_place=True)
async def embed_audio(
    request: Request, shared: Shared, query: Annotated[EmbeddingParameters, Query()]
) -> Response:
    """Turn each file of a form, or the body itself, into one vector; on request also its windows.

    Any sample rate and number of channels: the audio is mixed down and resampled to 16 kHz.
    """
    if form := streamed_as(request, query.stream):
        return await answer_in_lines(request, shared, query, partial(plan_vectors, shared), form)

    async def answer(body: Body, asked: EmbeddingParameters, timing: Timing) -> Response:
        if asked.stream:
            raise misplaced()
        encoder = shared.catalogue.model(asked.model).network
        check_dimensions(asked.dimensions, encoder.card)
        windowing = Windowing.of(asked.window_s, asked.hop_s, encoder.card)
        output = asked.output or preferred(request.headers.get("accept", ""))
        table = TABLES.get(output)
        if windowing and table and not table.takes_windows_of_many and len(body.uploads) > 1:
            raise _one_file_only(output, len(body.uploads))
        outcomes = await embed(
            request, shared, encoder, body, windowing, timing, selection=asked.selection
        )

        def write() -> Response:
            shorter = shorten(outcomes, asked.dimensions)
            return render(encoder.card, body.uploads, shorter, output)

        return await rendered(timing, n_vectors(outcomes), write)

    return await exchange(request, shared, query, answer)


def _one_file_only(output: str, n_files: int) -> Problem:
    reason = (
        f"output={output} holds one file's windows: send one file, or ask for output=arrow or "
        "base64."
    )
    return invalid_parameter("output", reason, value=f"{output} with {n_files} files")
