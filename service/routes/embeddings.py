"""`POST /v1/audio/embeddings`: audio files -> vectors."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from service.answers import NPY, render
from service.context import Context, Shared
from service.engine import Windowing
from service.openapi import Responses, audio_body, problem_responses
from service.problems import PROBLEM_TYPES, Problem, invalid_parameter
from service.schemas import EmbeddingList, EmbeddingParameters
from service.timing import Timing
from service.uploads import Body, read_body

router = APIRouter(tags=["embeddings"])

_PROBLEMS = [slug for slug in PROBLEM_TYPES if slug not in ("not-found", "method-not-allowed")]
_ANSWERS: Responses = {
    200: {
        "model": EmbeddingList,
        "description": "A vector for each file, in the order of the files. Where several were sent "
        "and some cannot be used, those carry an `error` instead.",
        "content": {
            NPY: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/v1/audio/embeddings",
    summary="Embed audio files",
    responses=_ANSWERS | problem_responses(_PROBLEMS),
    openapi_extra=audio_body(),
)
async def embed_audio(
    request: Request, shared: Shared, query: Annotated[EmbeddingParameters, Query()]
) -> Response:
    """Turn each file of a form, or the body itself, into one vector; on request also its windows.

    Any sample rate and number of channels: the audio is mixed down and resampled to 16 kHz.
    """
    timing = Timing()
    with shared.admission.slot():
        with timing.stage("receive"):
            body = await read_body(request, shared.settings)
        response = await _answer(request, shared, body, _merged(query, body.fields), timing)
    response.headers["Server-Timing"] = timing.header()
    return response


async def _answer(
    request: Request, shared: Context, body: Body, asked: EmbeddingParameters, timing: Timing
) -> Response:
    encoder = shared.catalogue.get(asked.model).encoder
    windowing = Windowing.of(asked.window_s, asked.hop_s, encoder.card)
    if windowing and asked.output == "npy" and len(body.uploads) > 1:
        raise _one_file_only(len(body.uploads))
    with timing.stage("decode"):
        prepared = await shared.engine.prepare(body.uploads)
    if await request.is_disconnected():
        raise ClientDisconnect
    with timing.stage("infer"):
        outcomes = await shared.engine.run(encoder, prepared, windowing)
    with timing.stage("render"):
        return await asyncio.to_thread(render, encoder.card, body.uploads, outcomes, asked.output)


def _merged(query: EmbeddingParameters, fields: dict[str, str]) -> EmbeddingParameters:
    """The query's parameters with the form's fields on top."""
    if not fields:
        return query
    try:
        return EmbeddingParameters.model_validate(query.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _one_file_only(n_files: int) -> Problem:
    reason = "output=npy holds one file's windows: send one file, or ask for output=base64."
    return invalid_parameter("output", reason, value=f"npy with {n_files} files")
