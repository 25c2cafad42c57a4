"""`/v1/collections/{name}/labels`: what people say of items and stretches of them."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request, Response
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from service.collecting import signature_of
from service.context import Collected, NameInPath, NumberInPath, Shared
from service.formats.answers import json_response
from service.formats.collection_answers import LabelAnswer, LabelPage, next_cursor
from service.formats.collection_requests import LabelsPageQuery, LabelsRequest
from service.formats.json_body import read_document
from service.openapi import Responses, json_body, problem_responses
from service.routes.collections import USUAL
from service.threads import in_thread
from service.traffic.access import needs_key

router = APIRouter(tags=["collections"])

log = structlog.get_logger()

_ADDED: Responses = {201: {"model": LabelPage, "description": "The labels, on the disk."}}


@router.post(
    "/v1/collections/{name}/labels",
    summary="Label items and stretches of them",
    status_code=HTTP_201_CREATED,
    responses=_ADDED
    | problem_responses(
        [
            *USUAL,
            "bad-request",
            "foreign-origin",
            "body-timeout",
            "body-too-large",
            "unsupported-media-type",
            "content-encoding",
            "collection-not-found",
            "item-not-found",
            "not-in-recording",
            "collection-full",
            "storage-full",
        ]
    ),
    openapi_extra=json_body(LabelsRequest),
)
@needs_key("teach")
async def add_labels(
    request: Request, shared: Shared, collected: Collected, name: NameInPath
) -> Response:
    """Say which sound an item is, is not, or may be; all of the labels are added, or none.

    A label keeps who said it and when. Nothing is overwritten: delete what is wrong.
    """
    collection = await collected.find(request.state.caller, name)
    asked = await read_document(request, shared.settings, LabelsRequest)
    new = [label.new_label() for label in asked.labels]
    by = signature_of(request.state.caller)
    made = await in_thread(collected.store.labels.add, collection, new, by)
    log.info("labels added", collection=name, key=by, labels=len(made))
    answer = LabelPage(data=[LabelAnswer.of(label) for label in made], next_cursor=None)
    response = json_response(answer)
    response.status_code = HTTP_201_CREATED
    return response


@router.get(
    "/v1/collections/{name}/labels",
    summary="List the labels of a collection",
    response_model_exclude_none=True,
    responses=problem_responses([*USUAL, "collection-not-found"]),
)
@needs_key("teach")
async def list_labels(
    request: Request,
    collected: Collected,
    name: NameInPath,
    query: Annotated[LabelsPageQuery, Query()],
) -> LabelPage:
    """A page of them, in the order in which they were added."""
    collection = await collected.find(request.state.caller, name)
    found = await in_thread(
        collected.store.labels.page,
        collection,
        after=query.cursor,
        limit=query.limit,
        item_id=query.item,
        label=query.label,
    )
    return LabelPage(
        data=[LabelAnswer.of(label) for label in found],
        next_cursor=next_cursor(found, query.limit),
    )


@router.delete(
    "/v1/collections/{name}/labels/{number}",
    summary="Delete a label",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses(
        [*USUAL, "foreign-origin", "collection-not-found", "item-not-found", "storage-full"]
    ),
)
@needs_key("teach")
async def delete_label(
    request: Request, collected: Collected, name: NameInPath, number: NumberInPath
) -> None:
    """Delete a label by its `id`."""
    collection = await collected.find(request.state.caller, name)
    await in_thread(collected.store.labels.delete, collection, number)
    log.info("labels deleted", collection=name, key=signature_of(request.state.caller), labels=1)
