"""`/v1/jobs`: work that goes on after its request has been answered, and its results."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse
from starlette.status import HTTP_200_OK, HTTP_202_ACCEPTED, HTTP_204_NO_CONTENT

from service.collecting import signature_of
from service.collections.job_records import NewJob
from service.context import Context, KeyInPath, Queued, Shared
from service.formats.answers import json_response
from service.formats.collection_answers import next_cursor
from service.formats.job_answers import JobAnswer, JobList
from service.formats.job_requests import SCOPES, JobRequest, JobsQuery, of_form
from service.formats.json_body import read_document, refuse_query
from service.jobs.kinds import Doing
from service.jobs.receiving import received_files
from service.jobs.webhooks import check_webhook
from service.openapi import Responses, job_body, problem_responses
from service.problems import Problem
from service.routes.collections import USUAL
from service.streams.lines import NDJSON
from service.threads import in_thread, one_by_one
from service.traffic.access import needs_key
from service.uploads.body import FORM, declared_media_type

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

log = structlog.get_logger()

_TAKEN: Responses = {
    200: {"model": JobAnswer, "description": "It was there already, by its `Idempotency-Key`."},
    202: {"model": JobAnswer, "description": "It is on the disk, and will be done."},
}
_RESULT: Responses = {
    200: {
        "description": "Lines of JSON, file by file: `file`, then its `window`s, `embedding` or "
        "`classification` and `done`; or `added`; or an `error`. Of teaching, the version; of "
        "a map, the map.",
        "content": {NDJSON: {"schema": {"type": "string"}}},
    }
}


@router.post(
    "",
    summary="Submit a job",
    status_code=HTTP_202_ACCEPTED,
    responses=_TAKEN
    | problem_responses(
        [
            *USUAL,
            "bad-request",
            "missing-file",
            "foreign-origin",
            "webhook-not-allowed",
            "model-not-found",
            "classifier-not-found",
            "collection-not-found",
            "upload-not-found",
            "upload-conflict",
            "job-differs",
            "collection-space",
            "space-mismatch",
            "too-many-to-compare",
            "classifier-taken",
            "body-timeout",
            "body-too-large",
            "too-many-files",
            "too-much-memory",
            "uploads-full",
            "jobs-full",
            "unsupported-media-type",
            "content-encoding",
            "quota-exceeded",
            "share-exceeded",
            "too-many-jobs",
            "draining",
            "quota-unknown",
            "model-unavailable",
            "storage-full",
        ]
    ),
    openapi_extra=job_body(JobRequest),
)
@needs_key("jobs", metered=True)
async def submit_job(
    request: Request,
    shared: Shared,
    queueing: Queued,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=128,
            description="Made by the client for each job: sent again with it, after a connection "
            "that broke, a request makes no second one.",
        ),
    ] = None,
) -> Response:
    """Have recordings of any length, or many, embedded, classified or indexed; teach; or map.

    Files come in a form, or as uploads that were sent before (`/v1/uploads`). The key needs the
    scope of what is done as well.
    """
    if declared_media_type(request) != FORM:
        asked = await read_document(request, shared.settings, JobRequest)
        new = await _new(request, shared, asked, asked.uploads, idempotency_key, asked.uploads)
        job, is_new = await queueing.submit(new)
    else:
        refuse_query(request)
        async with received_files(request, shared, queueing) as (fields, made):
            asked = of_form(fields)
            uploads = [*asked.uploads, *made.ids]
            contents = [*asked.uploads, *made.contents]
            new = await _new(request, shared, asked, uploads, idempotency_key, contents)
            job, is_new = await queueing.submit(new)
            made.are_taken = is_new
    if is_new:
        log.info("job submitted", job=job.id, kind=job.kind, key=job.owner, files=job.n_files)
    response = json_response(JobAnswer.of(job))
    response.status_code = HTTP_202_ACCEPTED if is_new else HTTP_200_OK
    response.headers["Location"] = f"{request.url.path.rstrip('/')}/{job.id}"
    return response


async def _new(
    request: Request,
    shared: Context,
    asked: JobRequest,
    uploads: list[str],
    key: str | None,
    contents: Sequence[Any],
) -> NewJob:
    """The job that is asked for, if the caller may have it and it can be done.

    `contents` are what a request that is sent again has in common with the first one: the names of
    uploads, which the first one has taken, and what there is in files.
    """
    caller = request.state.caller
    scope = SCOPES[asked.kind]
    if not caller.may(scope):
        raise Problem("forbidden", f"The key {caller.key} lacks the scope {scope}.")
    if asked.webhook is not None:
        check_webhook(asked.webhook.url, shared.settings.webhook_origins)
    understood = await Doing(shared, caller, asked).check(len(uploads))
    webhook = None if asked.webhook is None else asked.webhook.model_dump()
    return NewJob(
        signature_of(caller),
        caller.network,
        asked.kind,
        understood,
        tuple(uploads),
        webhook,
        key,
        tuple(sorted(caller.groups)),
        None if key is None else hashlib.sha256(orjson.dumps([contents, webhook])).hexdigest(),
    )


@router.get(
    "",
    summary="List jobs",
    response_model_exclude_none=True,
    responses=problem_responses(USUAL),
)
@needs_key("jobs")
async def list_jobs(
    request: Request, queueing: Queued, query: Annotated[JobsQuery, Query()]
) -> JobList:
    """A page of the key's jobs, the newest first; fewer than `limit` where much was asked for."""
    owner = signature_of(request.state.caller)
    kept = queueing.store.jobs
    limit = await in_thread(kept.fitting, owner, query.cursor, query.limit, query.state)
    found = await in_thread(kept.page, owner, query.cursor, limit, query.state)
    return JobList(data=[JobAnswer.of(job) for job in found], next_cursor=next_cursor(found, limit))


@router.get(
    "/{id}",
    summary="Show a job",
    response_model_exclude_none=True,
    responses=problem_responses([*USUAL, "job-not-found"]),
)
@needs_key("jobs")
async def show_job(request: Request, queueing: Queued, id: KeyInPath) -> JobAnswer:
    """How far it is."""
    owner = signature_of(request.state.caller)
    return JobAnswer.of(await in_thread(queueing.store.jobs.get, owner, id))


@router.get(
    "/{id}/result",
    summary="Get the result of a job",
    response_class=StreamingResponse,
    responses=_RESULT | problem_responses([*USUAL, "job-not-found", "job-not-done"]),
)
@needs_key("jobs")
async def get_result(request: Request, queueing: Queued, id: KeyInPath) -> Response:
    """Its lines, once it has ended; of a job that was cancelled or failed, what was done before."""
    owner = signature_of(request.state.caller)
    job = await in_thread(queueing.store.jobs.get, owner, id)
    parts = queueing.store.jobs.result(job)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(one_by_one(parts), media_type=NDJSON, headers=headers)


@router.post(
    "/{id}/cancel",
    summary="Cancel a job",
    response_model_exclude_none=True,
    responses=problem_responses([*USUAL, "foreign-origin", "job-not-found", "storage-full"]),
)
@needs_key("jobs")
async def cancel_job(request: Request, queueing: Queued, id: KeyInPath) -> JobAnswer:
    """End a job that waits; one that runs stops within seconds, and keeps what is done."""
    owner = signature_of(request.state.caller)
    cancel, put = queueing.store.jobs.cancel, queueing.queue.put
    job = await in_thread(cancel, owner, id, queueing.lapse_s, queueing.kept_s, put)
    log.info("job cancelled", job=id, key=owner)
    return JobAnswer.of(job)


@router.delete(
    "/{id}",
    summary="Delete a job",
    status_code=HTTP_204_NO_CONTENT,
    responses=problem_responses([*USUAL, "foreign-origin", "job-not-found", "storage-full"]),
)
@needs_key("jobs")
async def delete_job(request: Request, queueing: Queued, id: KeyInPath) -> None:
    """Delete it with its files and its result; answered once they are gone."""
    owner = signature_of(request.state.caller)
    await in_thread(queueing.store.jobs.delete, owner, id)
    log.info("job deleted", job=id, key=owner)
