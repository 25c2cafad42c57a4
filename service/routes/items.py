"""`/v1/collections/{name}/items`: recordings into a collection, listed, and out of it again."""

from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse
from starlette.status import HTTP_204_NO_CONTENT

from service.additions import Adding
from service.collections.filters import Filter
from service.context import Collected, IdInPath, NameInPath, Shared
from service.exchange import exchange
from service.formats.collection_answers import (
    AddedItems,
    DeletedItems,
    ItemAnswer,
    ItemPage,
    next_cursor,
)
from service.formats.collection_requests import Deletion, ItemsPageQuery, ItemsQuery, said_of
from service.formats.filter_requests import filter_of
from service.formats.json_body import read_document
from service.openapi import Responses, audio_body, json_body, problem_responses
from service.problem_types import AUDIO_PROBLEMS
from service.problems import Problem, invalid_parameter
from service.routes.collections import USUAL
from service.streams.keeping import Keeping, plan_of
from service.streams.lines import (
    EVENTS,
    NDJSON,
    Answers,
    answer_in_lines,
    misplaced,
    streamed_as,
)
from service.streams.streaming import Plan
from service.telemetry.timing import Timing
from service.threads import in_thread
from service.traffic.access import needs_key
from service.uploads.body import Body
from service.uploads.spool import Spooled

router = APIRouter(tags=["collections"])

log = structlog.get_logger()

_ADDED: Responses = {
    200: {
        "model": AddedItems,
        "description": "All of it was there already; or lines.",
        "content": dict.fromkeys((NDJSON, EVENTS), {"schema": {"type": "string"}}),
    },
    201: {
        "model": AddedItems,
        "description": "An item for each file, in the order of the files; it is on the disk. Where "
        "several were sent and some cannot be used, those carry an `error` instead.",
    },
}


@router.post(
    "/v1/collections/{name}/items",
    summary="Add recordings to a collection",
    responses=_ADDED
    | problem_responses(
        [
            *AUDIO_PROBLEMS,
            "collections-off",
            "storage-unavailable",
            "collection-not-found",
            "item-conflict",
            "collection-space",
            "collection-full",
        ]
    ),
    openapi_extra=audio_body(),
)
@needs_key("search", metered=True, takes_place=True)
async def add_items(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: NameInPath,
    query: Annotated[ItemsQuery, Query()],
) -> Response:
    """Embed files and keep their vectors, with an id and metadata of yours.

    Content that is there already is neither decoded nor added again, so that a request may be sent
    again after a failure. The audio itself is kept where the collection says so. A recording of
    hours goes with `stream=true`.
    """
    collection = await collected.find(request.state.caller, name)
    if form := streamed_as(request, query.stream):

        def instead(asked: ItemsQuery, upload: Spooled, given: Answers) -> Answers:
            (about,) = said_of(asked, 1)
            share = request.state.share
            return Keeping(share, shared, collected, collection, about, upload).lines(given)

        async def planned(asked: ItemsQuery) -> Plan:
            return plan_of(shared, collection)

        return await answer_in_lines(request, shared, query, planned, form, instead)

    async def answer(body: Body, asked: ItemsQuery, timing: Timing) -> Response:
        if asked.stream:
            raise misplaced()
        adding = Adding(request, shared, collected, collection, timing)
        return await adding.answer(body.uploads, said_of(asked, len(body.uploads)))

    return await exchange(request, shared, query, answer)


@router.get(
    "/v1/collections/{name}/items",
    summary="List the items of a collection",
    response_model_exclude_none=True,
    responses=problem_responses([*USUAL, "collection-not-found"]),
)
@needs_key("search")
async def list_items(
    request: Request,
    collected: Collected,
    name: NameInPath,
    query: Annotated[ItemsPageQuery, Query()],
) -> ItemPage:
    """A page of them, in the order in which they were added; those that a filter leaves."""
    collection = await collected.find(request.state.caller, name)
    found = await in_thread(
        collected.store.items.page,
        collection,
        query.cursor,
        query.limit,
        filter_of(query.filter),
    )
    return ItemPage(
        data=[ItemAnswer.of(item) for item in found],
        next_cursor=next_cursor(found, query.limit),
    )


@router.get(
    "/v1/collections/{name}/items/{id}",
    summary="Show an item",
    response_model_exclude_none=True,
    responses=problem_responses([*USUAL, "collection-not-found", "item-not-found"]),
)
@needs_key("search")
async def show_item(
    request: Request, collected: Collected, name: NameInPath, id: IdInPath
) -> ItemAnswer:
    """What is known of a recording."""
    collection = await collected.find(request.state.caller, name)
    return ItemAnswer.of(await in_thread(collected.store.items.get, collection, id))


_AUDIO: Responses = {
    200: {
        "description": "The file as it came.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get(
    "/v1/collections/{name}/items/{id}/audio",
    summary="Get the audio of an item",
    response_class=StreamingResponse,
    responses=_AUDIO | problem_responses([*USUAL, "collection-not-found", "item-not-found"]),
)
@needs_key("search")
async def get_audio(
    request: Request, collected: Collected, name: NameInPath, id: IdInPath
) -> Response:
    """The file as it came, where the collection keeps audio."""
    collection = await collected.find(request.state.caller, name)
    item = await in_thread(collected.store.items.get, collection, id)
    if not item.has_audio:
        raise Problem("item-not-found", f"The audio of the item {id!r} was not kept.")
    parts = collected.store.items.audio(collection, item)
    first = await in_thread(next, parts, b"")

    async def sent() -> AsyncIterator[bytes]:
        part = first
        while part:
            yield part
            part = await in_thread(next, parts, b"")

    return StreamingResponse(
        sent(),
        media_type="application/octet-stream",
        headers={"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"},
    )


@router.delete(
    "/v1/collections/{name}/items/{id}",
    summary="Delete an item",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses(
        [*USUAL, "foreign-origin", "collection-not-found", "item-not-found", "storage-full"]
    ),
)
@needs_key("search")
async def delete_item(
    request: Request, collected: Collected, name: NameInPath, id: IdInPath
) -> None:
    """Delete a recording with its vectors, labels and audio; answered once they are gone."""
    collection = await collected.find(request.state.caller, name)
    await in_thread(collected.store.items.delete, collection, id)
    key = request.state.caller.key
    log.info("items deleted", collection=name, key=key, items=1)


@router.post(
    "/v1/collections/{name}/deletions",
    summary="Delete items by a filter",
    responses=problem_responses(
        [
            *USUAL,
            "bad-request",
            "foreign-origin",
            "body-timeout",
            "body-too-large",
            "unsupported-media-type",
            "content-encoding",
            "collection-not-found",
            "storage-full",
        ]
    ),
    openapi_extra=json_body(Deletion),
)
@needs_key("search")
async def delete_items(
    request: Request, shared: Shared, collected: Collected, name: NameInPath
) -> DeletedItems:
    """Delete all items for which the filter holds; answered once they are gone."""
    collection = await collected.find(request.state.caller, name)
    asked = await read_document(request, shared.settings, Deletion)
    chosen: Filter = asked.filter.filter()
    if not chosen:
        reason = "filter says nothing: to delete everything, delete the collection."
        raise invalid_parameter("filter", reason, value="{}")
    n_items = await in_thread(collected.store.items.delete_matching, collection, chosen)
    log.info("items deleted", collection=name, key=request.state.caller.key, items=n_items)
    return DeletedItems(items=n_items)
