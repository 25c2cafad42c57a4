"""Every call about jobs and uploads as a value; see `viola.client.calls`."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from viola.client.calls import NDJSON, Call, nothing, plain_query, segment
from viola.client.errors import ServiceError, Unreachable
from viola.client.records import JobInfo, record
from viola.client.sounds import Upload

PAGE = 100
PIECE_BYTES = 8 << 20  # of a file that are sent, and sent again, at a time
KINDS = ("embed", "classify", "index", "teach", "map")


def announce(body: Upload) -> Call[str]:
    """Make room for a file; the upload's id."""
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(body.n_bytes)}
    if body.name is not None:
        headers["Upload-Metadata"] = f"filename {_base64(body.name)}"
    return Call("/v1/uploads", _id, method="POST", head=headers)


def received(upload: str) -> Call[int]:
    """How many bytes of a file have come."""

    def read(content: bytes) -> int:
        return int(json.loads(content)["received"])

    return Call(f"/v1/uploads/{upload}", read)


def append(upload: str, piece: bytes, offset: int) -> Call[None]:
    """Send bytes of a file that follow those that have come."""
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": str(offset),
        "Content-Type": "application/offset+octet-stream",
    }
    path = f"/v1/uploads/{upload}"
    return Call(path, nothing, method="PATCH", body=Upload(piece), head=headers)


def may_go_on(error: ServiceError | Unreachable) -> bool:
    """Whether to ask where a file goes on: the connection broke, or its bytes came twice."""
    return isinstance(error, Unreachable) or error.kind == "upload-conflict"


def submit(
    kind: str,
    asked: Mapping[str, Any],
    uploads: Sequence[str],
    webhook: Mapping[str, str] | None,
    key: str,
) -> Call[JobInfo]:
    """Submit a job; sent again under the same key it is the same job.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"a job of the kind {kind!r}; expected one of {', '.join(KINDS)}")
    usual = {"output": "base64"} if kind == "embed" else {}
    document: dict[str, Any] = {kind: usual | dict(asked), "uploads": list(uploads)}
    if webhook is not None:
        document["webhook"] = dict(webhook)
    headers = {"Idempotency-Key": key}
    return Call("/v1/jobs", _job, method="POST", document=document, head=headers)


def show(job: str) -> Call[JobInfo]:
    """How far a job is."""
    return Call(_path(job), _job)


def page(cursor: int | None, state: str | None) -> Call[tuple[list[JobInfo], int | None]]:
    """A page of the key's jobs, and where the next one begins."""

    def read(content: bytes) -> tuple[list[JobInfo], int | None]:
        document = json.loads(content)
        found = [record(JobInfo, members) for members in document["data"]]
        return found, document.get("next_cursor")

    query = plain_query({"limit": PAGE, "cursor": cursor, "state": state})
    return Call("/v1/jobs", read, query=query)


def cancel(job: str) -> Call[JobInfo]:
    """End a job."""
    return Call(f"{_path(job)}/cancel", _job, method="POST")


def delete(job: str) -> Call[None]:
    """Delete a job with its result."""
    return Call(_path(job), nothing, method="DELETE")


def result(job: str) -> Call[bytes]:
    """The lines of a job's result."""
    return Call(f"{_path(job)}/result", bytes, accept=NDJSON)


def _path(job: str) -> str:
    return f"/v1/jobs/{segment(job)}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _id(content: bytes) -> str:
    return str(json.loads(content)["id"])


def _job(content: bytes) -> JobInfo:
    return record(JobInfo, json.loads(content))
