"""`/v1/collections`: make, list, show and delete collections; what in one is nearly the same."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request, Response
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from models.runtime import Encoder
from service.collecting import Collecting, check_member, owner_of, owners_of, signature_of
from service.collections.duplicates import Duplicate, check_few_windows, find_duplicates
from service.collections.records import Collection, Terms
from service.comparisons import compared, in_its_place
from service.context import Collected, NameInPath, Shared
from service.formats.answers import json_response
from service.formats.collection_answers import (
    CollectionAnswer,
    CollectionList,
    DuplicateAnswer,
    DuplicateList,
    ItemMap,
)
from service.formats.collection_requests import CollectionTerms, DuplicatesQuery, MapQuery
from service.formats.filter_requests import filter_of
from service.formats.json_body import read_document
from service.inference.catalogue import Served
from service.inference.windowing import Windowing
from service.mapping import mapped
from service.openapi import Responses, json_body, problem_responses
from service.threads import in_thread
from service.traffic.access import needs_key

router = APIRouter(tags=["collections"])

log = structlog.get_logger()

USUAL = [
    "invalid-parameter",
    "unauthorized",
    "forbidden",
    "collections-off",
    "overloaded",
    "storage-unavailable",
]
_MADE: Responses = {
    200: {"model": CollectionAnswer, "description": "It was there already, of the same terms."},
    201: {"model": CollectionAnswer, "description": "It has been made."},
}


@router.put(
    "/v1/collections/{name}",
    summary="Make a collection",
    responses=_MADE
    | problem_responses(
        [
            *USUAL,
            "bad-request",
            "foreign-origin",
            "model-not-found",
            "body-timeout",
            "body-too-large",
            "unsupported-media-type",
            "content-encoding",
            "collection-differs",
            "collection-full",
            "storage-full",
            "model-unavailable",
        ]
    ),
    openapi_extra=json_body(CollectionTerms, required=False),
)
@needs_key("search")
async def put_collection(
    request: Request, shared: Shared, collected: Collected, name: NameInPath
) -> Response:
    """Make a collection; again with the same terms it is as good as once.

    It belongs to the key that makes it or, as `GROUP:NAME`, to a group that the key is in; and to
    one model: its vectors are compared with no others.
    """
    caller = request.state.caller
    check_member(caller, name)
    asked = await read_document(request, shared.settings, CollectionTerms)
    terms = _terms(shared.catalogue.model(asked.model), asked)
    made, is_new = await in_thread(
        collected.store.collections.put, owner_of(caller, name), name, terms, collected.quota
    )
    if is_new:
        key = signature_of(caller)
        log.info("collection made", collection=name, key=key, space_id=terms.space_id)
    response = json_response(CollectionAnswer.of(made))
    response.status_code = HTTP_201_CREATED if is_new else response.status_code
    return response


def _terms(model: Served[Encoder], asked: CollectionTerms) -> Terms:
    card = model.network.card
    window_s = asked.window_s if asked.granularity == "window" else None
    windowing = Windowing.of(window_s, asked.hop_s, card)
    hop_s = None if windowing is None else windowing.hop_s
    return Terms(model.name, model.space_id, card.embed_dim, window_s, hop_s, asked.keeps_audio)


@router.get(
    "/v1/collections",
    summary="List collections",
    response_model_exclude_none=True,
    responses=problem_responses(USUAL),
)
@needs_key("search")
async def list_collections(request: Request, collected: Collected) -> CollectionList:
    """All collections of the key by name, then those of its groups."""
    limit = collected.quota.collections
    found = [
        collection
        for owner in owners_of(request.state.caller)
        for collection in await in_thread(collected.store.collections.page, owner, "", limit)
    ]
    return CollectionList(data=[CollectionAnswer.of(collection) for collection in found])


@router.get(
    "/v1/collections/{name}",
    summary="Show a collection",
    response_model_exclude_none=True,
    responses=problem_responses([*USUAL, "collection-not-found"]),
)
@needs_key("search")
async def show_collection(
    request: Request, collected: Collected, name: NameInPath
) -> CollectionAnswer:
    """Its terms, and how much is in it."""
    return CollectionAnswer.of(await collected.find(request.state.caller, name))


@router.delete(
    "/v1/collections/{name}",
    summary="Delete a collection",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses([*USUAL, "foreign-origin", "collection-not-found", "storage-full"]),
)
@needs_key("search")
async def delete_collection(request: Request, collected: Collected, name: NameInPath) -> None:
    """Delete it with its vectors, labels and audio; answered once they are gone."""
    caller = request.state.caller
    await in_thread(collected.store.collections.delete, owner_of(caller, name), name)
    log.info("collection deleted", collection=name, key=signature_of(caller))


@router.get(
    "/v1/collections/{name}/duplicates",
    summary="Find near-duplicates",
    response_model_exclude_none=True,
    responses=problem_responses(
        [*USUAL, "collection-not-found", "too-many-to-compare", "too-much-memory", "deadline"]
    ),
)
@needs_key("search")
async def list_duplicates(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: NameInPath,
    query: Annotated[DuplicatesQuery, Query()],
) -> DuplicateList:
    """Pairs of items that are closer than neighbours in this collection are by chance."""
    collection = await collected.find(request.state.caller, name)
    work = compared(
        request.state.share,
        collected,
        collection,
        filter_of(query.filter),
        lambda size: check_few_windows(size.windows),
        partial(find_duplicates, confidence=query.confidence),
    )
    found = await in_its_place(request, shared, collected, work)
    return await in_thread(_duplicates, collected, collection, found, query.limit)


@router.get(
    "/v1/collections/{name}/map",
    summary="Map a collection",
    response_model_exclude_none=True,
    responses=problem_responses(
        [*USUAL, "collection-not-found", "too-many-to-compare", "too-much-memory", "deadline"]
    ),
)
@needs_key("search")
async def show_map(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: NameInPath,
    query: Annotated[MapQuery, Query()],
) -> ItemMap:
    """Give each item a place on a plane, so that what sounds alike lies together, and a cluster."""
    collection = await collected.find(request.state.caller, name)
    work = mapped(
        request.state.share,
        collected,
        collection,
        filter_of(query.filter),
        clusters=query.clusters,
        seed=query.seed,
    )
    return await in_its_place(request, shared, collected, work)


def _duplicates(
    collected: Collecting, collection: Collection, found: Sequence[Duplicate], limit: int
) -> DuplicateList:
    shown = found[:limit]
    keys = {key for pair in shown for key in pair.items}
    names = collected.store.items.by_key(collection, sorted(keys))
    return DuplicateList(
        collection=collection.name,
        pairs=len(found),
        data=[DuplicateAnswer.of(pair, names) for pair in shown if names.keys() >= set(pair.items)],
    )
