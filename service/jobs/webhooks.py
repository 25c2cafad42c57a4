"""Tells whoever waits for a job that it has ended, in the form of Standard Webhooks.

    webhook-id: the job's id, the same at every try, so that a receiver recognises repetitions
    webhook-timestamp: seconds since 1970
    webhook-signature: v1,BASE64(HMAC-SHA256(secret, "id.timestamp.body"))

Where it is posted to is an origin that the operator has named. Nothing else is connected to:
redirections are not followed, and what comes back but the status is not read.
"""

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import orjson
import structlog

from service.collections.job_records import Job
from service.collections.jobs import Jobs
from service.formats.job_answers import JobAnswer
from service.formats.job_requests import key_of
from service.problems import Problem
from service.queues.queue import Again
from service.threads import in_thread
from service.untrusted import printable

TIMEOUT_S = 10.0  # for all of it, from looking up the name to the status that comes back
RETRIES_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 4 * 3600.0, 12 * 3600.0)  # after each failure

log = structlog.get_logger()


def check_webhook(url: str, origins: Iterable[str]) -> None:
    """Refuse an address whose origin the operator has not named.

    Raises:
        Problem: it is no such address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname or ""
    origin = f"{parts.scheme}://[{host}]" if ":" in host else f"{parts.scheme}://{host}"
    origin += "" if port is None else f":{port}"
    if "@" in parts.netloc:
        detail = "A webhook's address has no user and no password: what is posted is signed."
        raise Problem("webhook-not-allowed", detail, param="webhook")
    if origin not in origins:
        named = ", ".join(origins) or "none"
        shown = f"the origin {origin!r}" if host else repr(printable(url))
        raise Problem(
            "webhook-not-allowed",
            f"Nothing is posted to {shown}; allowed are: {named}.",
            param="webhook",
        )


async def tell(jobs: Jobs, name: str) -> None:
    """Post that a job has ended, once.

    Raises:
        Again: it was not taken, and when to try again.
    """
    job = await in_thread(jobs.to_tell, name)
    if job is None or job.webhook is None:
        return
    reason = await _post(job, time.time())
    if reason is None:
        await in_thread(jobs.told, job, "delivered")
        return
    is_over = job.webhook_tries >= len(RETRIES_S)
    log.info("webhook not taken", job=job.id, tries=job.webhook_tries + 1, reason=reason)
    await in_thread(jobs.told, job, "failed" if is_over else "pending")
    if not is_over:
        raise Again(RETRIES_S[job.webhook_tries])


def signed(job_id: str, body: bytes, secret: str, now: float) -> dict[str, str]:
    """The headers that prove who has written a body, and when."""
    moment = str(int(now))
    content = b".".join((job_id.encode(), moment.encode(), body))
    digest = hmac.new(key_of(secret), content, hashlib.sha256).digest()
    return {
        "webhook-id": job_id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


async def _post(job: Job, now: float) -> str | None:
    """Post the end of a job; returns why it was not taken, None if it was."""
    assert job.webhook is not None
    body = orjson.dumps(
        {
            "type": f"job.{job.state}",
            "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
            "data": JobAnswer.of(job).model_dump(mode="json", exclude_none=True),
        }
    )
    headers = signed(job.id, body, job.webhook["secret"], now)
    headers |= {"Content-Type": "application/json", "User-Agent": "viola"}
    try:
        # Not a limit on each read: who sends a byte now and then would keep a worker for ever
        async with asyncio.timeout(TIMEOUT_S):
            status = await _status(job.webhook["url"], headers, body)
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None if 200 <= status < 300 else f"status {status}"


async def _status(url: str, headers: Mapping[str, str], body: bytes) -> int:
    """The status that comes back for a POST; nothing behind it is read.

    Raises:
        HTTPError: there is no connection, or what comes back is no HTTP.
    """
    context = await in_thread(ssl.create_default_context)  # reads files
    # Neither a proxy of the environment nor a redirection leads anywhere else
    client = httpx.AsyncClient(verify=context, trust_env=False, timeout=None)
    async with client, client.stream("POST", url, content=body, headers=headers) as answer:
        return answer.status_code
