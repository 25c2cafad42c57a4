"""`/v1/collections/{name}/reembed`: move a collection that keeps audio to another model."""

import structlog
from fastapi import APIRouter, Request, Response
from starlette.status import HTTP_204_NO_CONTENT

from service.collecting import signature_of
from service.context import Collected, NameInPath, Shared
from service.formats.collection_requests import ReembedRequest
from service.formats.json_body import read_document
from service.openapi import Responses, json_body, problem_responses
from service.routes.collections import USUAL
from service.streams.lines import LINES, NDJSON, send_in_lines, streamed_as
from service.streams.reembedding import Moving
from service.threads import in_thread
from service.traffic.access import needs_key

router = APIRouter(tags=["collections"])

log = structlog.get_logger()

_LINES: Responses = {
    200: {
        "description": "Lines of JSON, or events: `reembedding` with how many items are left; "
        "`progress` or `failure` for each item; `done`, with `is_complete` and the collection as "
        "it is then. What breaks it off is the last line, an `error`.",
        "content": LINES,
    }
}


@router.post(
    "/v1/collections/{name}/reembed",
    summary="Move a collection to another model",
    response_class=Response,
    responses=_LINES
    | problem_responses(
        [
            *USUAL,
            "bad-request",
            "foreign-origin",
            "body-timeout",
            "body-too-large",
            "unsupported-media-type",
            "content-encoding",
            "too-much-memory",
            "collection-not-found",
            "collection-differs",
            "collection-full",
            "audio-not-kept",
            "model-not-found",
            "model-unavailable",
            "quota-exceeded",
            "quota-unknown",
            "draining",
            "storage-full",
        ]
    ),
    openapi_extra=json_body(ReembedRequest, required=False),
)
@needs_key("search", metered=True)
async def reembed_collection(
    request: Request, shared: Shared, collected: Collected, name: NameInPath
) -> Response:
    """Embed the audio that the collection keeps by another model, and let that answer.

    Until the last item is done the collection stays as it was; then it changes in one step, with
    ids, metadata and labels as they were. Whatever ends the answer, the same request goes on. An
    item whose audio was not kept, or cannot be read any more, keeps it from being completed.
    """
    asked = await read_document(request, shared.settings, ReembedRequest)
    collection = await collected.find(request.state.caller, name)
    model = shared.catalogue.model(asked.model)
    moving = Moving(request, shared, collected, collection, model)
    form = streamed_as(request, True) or NDJSON
    return await send_in_lines(request, shared, moving.lines(), form)


@router.delete(
    "/v1/collections/{name}/reembed",
    summary="Give up a move to another model",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses([*USUAL, "foreign-origin", "collection-not-found", "storage-full"]),
)
@needs_key("search")
async def give_up_reembedding(request: Request, collected: Collected, name: NameInPath) -> None:
    """Forget the vectors that have been computed for another model; the collection stays."""
    collection = await collected.find(request.state.caller, name)
    await in_thread(collected.store.reembedding.give_up, collection)
    key = signature_of(request.state.caller)
    log.info("move given up", collection=name, key=key)
