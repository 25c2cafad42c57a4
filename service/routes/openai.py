"""`POST /v1/embeddings`: audio files in base64 -> vectors, in the shape of OpenAI's API."""

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from models.card import Card
from service.clips import Embedded
from service.context import Shared
from service.dimensions import check_dimensions, shorten
from service.exchange import embed, exchange_with, n_vectors, rendered
from service.formats.answers import all_embedded, json_response
from service.formats.json_body import JSON
from service.formats.openai_embeddings import (
    OpenAIEmbedding,
    OpenAIList,
    OpenAIParameters,
    OpenAIRequest,
    openai_usage,
    read_openai,
)
from service.formats.vectors import vector
from service.openapi import SCHEMAS, Responses, problem_responses
from service.problem_types import AUDIO_PROBLEMS
from service.telemetry.timing import Timing
from service.traffic.access import needs_key
from service.uploads.body import Body

router = APIRouter(tags=["embeddings"])

_ANSWERS: Responses = {
    200: {"model": OpenAIList, "description": "A vector for each file, in their order."}
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"$ref": SCHEMAS + OpenAIRequest.__name__}}},
    }
}


@router.post(
    "/v1/embeddings",
    summary="Embed audio files, in OpenAI's shape",
    responses=_ANSWERS | problem_responses(AUDIO_PROBLEMS),
    openapi_extra=_BODY,
)
@needs_key("embed", metered=True, takes_place=True)
async def embed_openai(request: Request, shared: Shared) -> Response:
    """Turn audio files in base64 into vectors, for clients that speak OpenAI's API.

    A file that cannot be used fails the whole request, as there; the error's `param` tells which.
    """

    async def answer(body: Body, asked: OpenAIParameters, timing: Timing) -> Response:
        encoder = shared.catalogue.model(asked.model).network
        check_dimensions(asked.dimensions, encoder.card)
        outcomes = await embed(request, shared, encoder, body, None, timing)
        files = all_embedded(shorten(outcomes, asked.dimensions), "input")
        return await rendered(timing, n_vectors(files), _render, encoder.card, files, asked)

    return await exchange_with(read_openai, request, shared, OpenAIParameters(), answer)


def _render(card: Card, files: Sequence[Embedded], asked: OpenAIParameters) -> Response:
    output = "base64" if asked.encoding_format == "base64" else "json"
    return json_response(
        OpenAIList(
            model=card.name,
            space_id=card.space_id,
            data=[
                OpenAIEmbedding(
                    index=index,
                    embedding=vector(file.embedding, output),
                    duration_s=file.duration_s,
                )
                for index, file in enumerate(files)
            ],
            usage=openai_usage(card, files),
        )
    )
