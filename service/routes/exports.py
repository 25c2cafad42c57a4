"""`GET /v1/collections/{name}/vectors`: all vectors of a collection as a file."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from service.context import Collected, NameInPath, Shared
from service.formats.collection_requests import VectorsQuery
from service.formats.exports import FORMS
from service.openapi import Responses, problem_responses
from service.routes.collections import USUAL
from service.streams.exporting import send_export
from service.traffic.access import needs_key

router = APIRouter(tags=["collections"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE: Responses = {
    200: {
        "description": "The file; `Viola-Space-Id` says which space its vectors are of.",
        "content": {form.media_type.partition(";")[0]: _BINARY for form in FORMS.values()},
    }
}


@router.get(
    "/v1/collections/{name}/vectors",
    summary="Export a collection",
    response_class=StreamingResponse,
    responses=_FILE | problem_responses([*USUAL, "collection-not-found", "too-much-memory"]),
)
@needs_key("search")
async def export_vectors(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: NameInPath,
    query: Annotated[VectorsQuery, Query()],
) -> StreamingResponse:
    """All windows of a collection, in the order in which they were added, as a file.

    `viola index` reads the Parquet file. Parquet and CSV are sent while they are read, of any
    length; an array has to fit into the memory of all requests.
    """
    collection = await collected.find(request.state.caller, name)
    return await send_export(request, shared, collected, collection, query.output)
