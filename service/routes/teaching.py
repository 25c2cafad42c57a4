"""`/v1/classifiers`: make classifiers of a collection's labels, and look after their versions."""

from functools import partial
from time import monotonic
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from models.classifier import Classifier
from service.collecting import Collecting, check_member, owner_of, signature_of
from service.collections.classifiers import ClassifierNotFound
from service.collections.proposing import Proposed, propose, unlabelled
from service.collections.records import Collection
from service.comparisons import in_its_place
from service.context import Collected, Context, NameInPath, Shared, Teaches, model_of
from service.formats.answers import json_response
from service.formats.json_body import read_document
from service.formats.teaching_answers import (
    NextList,
    NextWindow,
    TaughtAnswer,
    TaughtEntry,
    VersionAnswer,
)
from service.formats.teaching_requests import NextQuery, TeachRequest
from service.inference.scoring import Scored, describe
from service.learning import check_free, keep, learn
from service.naming import GROUP_MARK
from service.openapi import Responses, json_body, problem_responses
from service.parameters import PLAIN, PredictionParameters
from service.problems import Problem
from service.routes.collections import USUAL
from service.threads import in_thread
from service.traffic.access import needs_key
from service.traffic.patience import while_connected

router = APIRouter(prefix="/v1/classifiers", tags=["classifiers"])

log = structlog.get_logger()

ONNX = "application/octet-stream"
TOP_K = 3  # labels of a window that is to be labelled
LEAST_CANDIDATES = 1_000
MAX_CANDIDATES = 50_000

_CHANGING = [*USUAL, "foreign-origin", "classifier-not-found", "classifier-taken", "storage-full"]
_TAUGHT: Responses = {
    201: {"model": TaughtAnswer, "description": "The classifier, kept and ready to answer."}
}
_FILE: Responses = {
    200: {
        "description": "An ONNX file: `embedding` in; `probabilities`, `logits`, `novelty` out; "
        "its card is in its metadata.",
        "content": {ONNX: {"schema": {"type": "string", "format": "binary"}}},
    }
}

Number = Annotated[int, Field(ge=1, le=2**31 - 1), PLAIN]
VersionInPath = Annotated[Number, Path()]
VersionInQuery = Annotated[
    Number | None, Query(description="Which version; else the one that answers.")
]


@router.post(
    "",
    summary="Teach a classifier",
    status_code=HTTP_201_CREATED,
    responses=_TAUGHT
    | problem_responses(
        [
            *USUAL,
            "bad-request",
            "foreign-origin",
            "collection-not-found",
            "classifier-taken",
            "collection-space",
            "collection-full",
            "body-timeout",
            "body-too-large",
            "too-much-memory",
            "unsupported-media-type",
            "content-encoding",
            "nothing-to-learn",
            "fit-failed",
            "resources-exhausted",
            "draining",
            "teaching-unavailable",
            "deadline",
            "storage-full",
        ]
    ),
    openapi_extra=json_body(TeachRequest),
)
@needs_key("teach", drained=True)
async def teach_classifier(
    request: Request, shared: Shared, collected: Collected, teaching: Teaches
) -> Response:
    """Make a classifier of the labels of a collection; it answers at once, as `head=NAME`.

    It is tested on recordings that it was not taught with, calibrated, and kept as the next version
    of its name. `verdict` and `warnings` say in words what it is worth.
    """
    started = monotonic()
    asked = await read_document(request, shared.settings, TeachRequest)
    check_member(request.state.caller, asked.name)
    check_free(shared, asked.name)
    collection = await collected.find(request.state.caller, asked.collection)
    model_of(shared, collection)
    with teaching.places.slot():
        work = learn(request.state.share, collected, teaching, collection, asked)
        taught, fit = await while_connected(request, work)
        caller = request.state.caller
        kept, version = await in_thread(keep, collected, caller, asked, taught, fit)
    total_s = monotonic() - started
    log.info(
        "classifier taught",
        head=kept.name,
        version=version.number,
        collection=collection.name,
        key=version.by,
        windows=len(taught.rows),
        seconds=total_s,
    )
    entry = VersionAnswer.told(kept, version)
    response = json_response(TaughtAnswer(total_s=total_s, **dict(entry)))
    response.status_code = HTTP_201_CREATED
    return response


@router.post(
    "/{name}/versions/{number}/activate",
    summary="Let another version answer",
    responses=problem_responses(_CHANGING),
)
@needs_key("teach")
async def activate_version(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: NameInPath,
    number: VersionInPath,
) -> TaughtEntry:
    """Go back to an earlier version of a taught classifier, or forward; at once, and everywhere."""
    check_free(shared, name)
    owner = owner_of(request.state.caller, name)
    kept = await in_thread(collected.store.classifiers.activate, owner, name, number)
    log.info("version activated", head=name, version=number, key=signature_of(request.state.caller))
    return TaughtEntry.told(kept, shared.catalogue.models.values())


@router.get(
    "/{name}/versions/{number}",
    summary="Show a version",
    responses=problem_responses([*USUAL, "classifier-not-found"]),
)
@needs_key("teach")
async def show_version(
    request: Request, collected: Collected, name: NameInPath, number: VersionInPath
) -> VersionAnswer:
    """One version of a taught classifier, with its card, verdict and warnings."""
    owner = owner_of(request.state.caller, name)
    kept = await in_thread(collected.store.classifiers.get, owner, name)
    return VersionAnswer.told(kept, kept.version(number))


@router.delete(
    "/{name}/versions/{number}",
    summary="Delete a version",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses([*_CHANGING, "version-in-use"]),
)
@needs_key("teach")
async def delete_version(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: NameInPath,
    number: VersionInPath,
) -> None:
    """Delete a version that does not answer."""
    check_free(shared, name)
    owner = owner_of(request.state.caller, name)
    await in_thread(collected.store.classifiers.delete_version, owner, name, number)
    log.info("version deleted", head=name, version=number, key=signature_of(request.state.caller))


@router.delete(
    "/{name}",
    summary="Delete a taught classifier",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses(_CHANGING),
)
@needs_key("teach")
async def delete_classifier(
    request: Request, shared: Shared, collected: Collected, name: NameInPath
) -> None:
    """Delete it with all its versions; the collection that taught it stays."""
    owner = owner_of(request.state.caller, name)
    try:
        await in_thread(collected.store.classifiers.delete, owner, name)
    except ClassifierNotFound:
        check_free(shared, name)
        raise
    log.info("classifier deleted", head=name, key=signature_of(request.state.caller))


@router.get(
    "/{name}/file",
    summary="Download a taught classifier",
    response_class=Response,
    responses=_FILE | problem_responses([*USUAL, "classifier-not-found"]),
)
@needs_key("teach")
async def download_classifier(
    request: Request, collected: Collected, name: NameInPath, version: VersionInQuery = None
) -> Response:
    """Its ONNX file, for `viola classify --head NAME.onnx` or any ONNX Runtime."""
    owner = owner_of(request.state.caller, name)
    download = collected.store.classifiers.download
    number, content = await in_thread(download, owner, name, version)
    file = name.rpartition(GROUP_MARK)[2] + ".onnx"
    headers = {
        "Content-Disposition": f'attachment; filename="{file}"',
        "Viola-Version": str(number),
    }
    return Response(content, media_type=ONNX, headers=headers)


@router.get(
    "/{name}/next",
    summary="Choose what to label next",
    responses=problem_responses(
        [
            *USUAL,
            "classifier-not-found",
            "collection-not-found",
            "collection-space",
            "space-mismatch",
            "too-much-memory",
            "model-unavailable",
            "deadline",
        ]
    ),
)
@needs_key("teach")
async def next_to_label(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: Annotated[str, Path(max_length=128)],
    query: Annotated[NextQuery, Query()],
) -> NextList:
    """Windows of a collection that nobody has labelled and that would teach the most.

    Of a large collection some windows are drawn, and `considered` says how many.
    """
    collection = await collected.find(request.state.caller, query.collection)
    catalogue = await shared.catalogue_of(request.state.caller, [name])
    head = catalogue.classifier(name)
    if head.space_id != collection.terms.space_id:
        raise Problem(
            "space-mismatch",
            f"The classifier {name!r} takes vectors of space {head.space_id}; the collection "
            f"{collection.name!r} is of space {collection.terms.space_id}.",
            param="collection",
        )
    work = _proposed(request, shared, collected, collection, head.network, query)
    proposed = await in_its_place(request, shared, collected, work)
    keys = proposed.windows.items.tolist()
    items = await in_thread(collected.store.items.by_key, collection, sorted(set(keys)))
    scored, asked = Scored(head.network.card, proposed.said), PredictionParameters(top_k=TOP_K)
    data = []
    for row, key in enumerate(keys):
        if key in items:  # else it was deleted meanwhile
            said = describe(scored, row, asked)
            data.append(
                NextWindow(
                    item=items[key].id,
                    start_s=float(proposed.windows.start_s[row]),
                    end_s=float(proposed.windows.end_s[row]),
                    margin=float(proposed.margins[row]),
                    predictions=said.predictions,
                    novelty=said.novelty,
                )
            )
    return NextList(
        head=name,
        collection=collection.name,
        strategy=query.strategy,
        considered=proposed.considered,
        data=data,
    )


async def _proposed(
    request: Request,
    shared: Context,
    collected: Collecting,
    collection: Collection,
    classifier: Classifier,
    query: NextQuery,
) -> Proposed:
    """Which windows to label next; only the classifier's part of it runs where classifiers run."""
    n_bytes = 4 * collection.terms.dimensions
    n_most = _n_candidates(shared, n_bytes)
    await request.state.share.take(2 * min(n_most, collection.n_windows) * n_bytes)
    found = await in_thread(unlabelled, collected.store, collection, n_most, query.seed)
    said = await shared.engine.infer(partial(classifier.predict, found.silent.vectors))
    how = query.n, query.strategy, query.seed
    return await in_thread(propose, found, said, *how, multi_label=classifier.card.multi_label)


def _n_candidates(shared: Context, n_bytes: int) -> int:
    """How many windows of so many bytes are looked at: an eighth of the memory of all requests."""
    room = shared.settings.memory_bytes // 8 // n_bytes
    return max(LEAST_CANDIDATES, min(MAX_CANDIDATES, room))
