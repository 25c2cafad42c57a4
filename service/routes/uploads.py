"""`/v1/uploads`: files that come in parts and go on after a break, by the core of tus 1.0.0.

Extensions: creation, expiration, termination. What has come is on the disk before it is answered.
"""

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Request, Response
from starlette.requests import ClientDisconnect
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from service.collecting import signature_of
from service.collections.job_records import Upload
from service.collections.uploads import PART_BYTES
from service.context import KeyInPath, Queued, Shared
from service.formats.answers import json_response
from service.formats.job_answers import UploadAnswer
from service.openapi import Responses, offset_body, problem_responses
from service.parameters import PLAIN
from service.problems import Problem, invalid_parameter
from service.routes.collections import USUAL
from service.threads import in_thread
from service.traffic.access import needs_key, open_to_all
from service.untrusted import printable
from service.uploads.body import OFFSET, declared_media_type, has_body, refuse_encoding

router = APIRouter(prefix="/v1/uploads", tags=["jobs"])

log = structlog.get_logger()

TUS = "1.0.0"
EXTENSIONS = "creation,expiration,termination"
MAX_LENGTH = 2**53

_USUAL = [*USUAL, "tus-version"]
_HEADERS = {
    "Tus-Resumable": {"schema": {"type": "string"}},
    "Upload-Expires": {"schema": {"type": "string"}},
}
_OFFSET = {"Upload-Offset": {"schema": {"type": "integer"}}}
_LOCATION = {"Location": {"schema": {"type": "string"}}}
_CREATED: Responses = {
    201: {"model": UploadAnswer, "description": "Announced.", "headers": _HEADERS | _LOCATION}
}
_APPENDED: Responses = {204: {"description": "On the disk.", "headers": _HEADERS | _OFFSET}}

Version = Annotated[
    str | None, Header(alias="Tus-Resumable", description="The version of tus, if given: 1.0.0.")
]


@router.options(
    "",
    summary="Ask what uploads can do",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses([]),
)
@open_to_all
async def uploads_options(request: Request, shared: Shared) -> Response:
    """The version of tus, its extensions, and the most bytes that one file may have."""
    headers = {
        "Tus-Resumable": TUS,
        "Tus-Version": TUS,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(shared.settings.max_stream_body_bytes),
    }
    return Response(status_code=HTTP_204_NO_CONTENT, headers=headers)


@router.post(
    "",
    summary="Announce an upload",
    status_code=HTTP_201_CREATED,
    responses=_CREATED
    | problem_responses(
        [*_USUAL, "bad-request", "foreign-origin", "body-too-large", "uploads-full", "storage-full"]
    ),
)
@needs_key("jobs", drained=True)
async def create_upload(
    request: Request,
    shared: Shared,
    queueing: Queued,
    upload_length: Annotated[
        int, Header(ge=0, le=MAX_LENGTH, description="Bytes of the file."), PLAIN
    ],
    upload_metadata: Annotated[
        str | None,
        Header(max_length=4096, description="Names and values in base64; `filename` is kept."),
    ] = None,
    version: Version = None,
) -> Response:
    """Make room for a file of a job; `Location` is where its bytes go, with PATCH.

    It has to be whole, and in a job, until `Upload-Expires`.
    """
    _check_version(version)
    if has_body(request):
        raise Problem("bad-request", "An announcement has no body: send the bytes with PATCH.")
    most = shared.settings.max_stream_body_bytes
    if upload_length > most:
        raise Problem(
            "body-too-large",
            f"The file has {upload_length} bytes; at most {most} are accepted.",
            limit=most,
            observed=upload_length,
            unit="bytes",
        )
    upload = await in_thread(
        queueing.store.uploads.create,
        signature_of(request.state.caller),
        upload_length,
        _file_name(upload_metadata),
        most_bytes=queueing.most_bytes,
        kept_s=queueing.uploads_kept_s,
    )
    location = {"Location": f"{request.url.path.rstrip('/')}/{upload.id}"}
    response = json_response(UploadAnswer.of(upload))
    response.status_code = HTTP_201_CREATED
    response.headers.update(_told(upload) | location)
    return response


@router.get(
    "/{id}",
    summary="Show an upload",
    response_model=UploadAnswer,
    responses=problem_responses([*_USUAL, "upload-not-found"]),
)
@needs_key("jobs")
async def show_upload(
    request: Request, queueing: Queued, id: KeyInPath, version: Version = None
) -> Response:
    """How much has come; HEAD has it as `Upload-Offset` and `Upload-Length`."""
    _check_version(version)
    upload = await in_thread(queueing.store.uploads.get, signature_of(request.state.caller), id)
    response = json_response(UploadAnswer.of(upload))
    response.headers.update(_told(upload) | {"Cache-Control": "no-store"})
    return response


@router.patch(
    "/{id}",
    summary="Send bytes of an upload",
    status_code=HTTP_204_NO_CONTENT,
    responses=_APPENDED
    | problem_responses(
        [
            *_USUAL,
            "foreign-origin",
            "upload-not-found",
            "upload-conflict",
            "share-exceeded",
            "body-timeout",
            "body-too-large",
            "unsupported-media-type",
            "content-encoding",
            "storage-full",
        ]
    ),
    openapi_extra=offset_body(),
)
@needs_key("jobs", drained=True)
async def append_to_upload(
    request: Request,
    shared: Shared,
    queueing: Queued,
    id: KeyInPath,
    upload_offset: Annotated[
        int, Header(ge=0, le=MAX_LENGTH, description="How many bytes have come before."), PLAIN
    ],
    version: Version = None,
) -> Response:
    """Add bytes behind those that have come. Where a connection breaks, what came of them stays."""
    _check_version(version)
    refuse_encoding(request)
    if (kind := declared_media_type(request)) != OFFSET:
        detail = f"Content-Type {printable(kind)!r} is not accepted; send {OFFSET}."
        raise Problem("unsupported-media-type", detail, accepted=[OFFSET])
    request.state.max_body_bytes = shared.settings.max_stream_body_bytes
    owner = signature_of(request.state.caller)
    upload = await in_thread(queueing.store.uploads.append, owner, id, upload_offset, b"")
    with shared.receiving.slot(), shared.receivers.slot(request.state.caller):
        # A piece while it comes, and again while it is written
        held = 2 * min(PART_BYTES, upload.n_bytes - upload.n_received)
        await request.state.share.take(held, is_upload=True)
        async for data in _pieces(request):
            append, first = queueing.store.uploads.append, upload.n_received
            upload = await in_thread(append, owner, id, first, data)
    return Response(status_code=HTTP_204_NO_CONTENT, headers=_told(upload))


@router.delete(
    "/{id}",
    summary="Delete an upload",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses(
        [*_USUAL, "foreign-origin", "upload-not-found", "upload-conflict", "storage-full"]
    ),
)
@needs_key("jobs")
async def delete_upload(
    request: Request, queueing: Queued, id: KeyInPath, version: Version = None
) -> Response:
    """Delete an upload that no job has; answered once it is gone."""
    _check_version(version)
    await in_thread(queueing.store.uploads.delete, signature_of(request.state.caller), id)
    return Response(status_code=HTTP_204_NO_CONTENT, headers={"Tus-Resumable": TUS})


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces of a part; where the client goes, what came before that is the last."""
    held = bytearray()
    try:
        async for chunk in request.stream():
            held += chunk
            while len(held) >= PART_BYTES:
                yield bytes(held[:PART_BYTES])
                del held[:PART_BYTES]
    except ClientDisconnect:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


def _check_version(version: str | None) -> None:
    if version not in (None, TUS):
        raise Problem(
            "tus-version",
            f"Version {printable(version or '')!r} of tus is not spoken here; {TUS} is.",
            headers={"Tus-Version": TUS, "Tus-Resumable": TUS},
        )


def _told(upload: Upload) -> dict[str, str]:
    expires = format_datetime(datetime.fromtimestamp(upload.expires_at, UTC), usegmt=True)
    return {
        "Tus-Resumable": TUS,
        "Upload-Offset": str(upload.n_received),
        "Upload-Length": str(upload.n_bytes),
        "Upload-Expires": expires,
    }


def _file_name(metadata: str | None) -> str | None:
    """The `filename` of an Upload-Metadata header."""
    for pair in (metadata or "").split(","):
        name, _, value = pair.strip().partition(" ")
        if name == "filename":
            try:
                return printable(base64.b64decode(value, validate=True).decode())
            except (binascii.Error, ValueError):
                reason = "upload_metadata: filename is no UTF-8 in base64."
                raise invalid_parameter("upload-metadata", reason, value=value) from None
    return None
