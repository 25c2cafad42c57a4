"""`GET /v1/usage`: who has used how much since the process started."""

from fastapi import APIRouter, Request

from service.context import Shared
from service.openapi import problem_responses
from service.schemas import KeyUsage, UsageReport
from service.traffic.access import needs_key
from service.traffic.quotas import Caller
from service.traffic.usage import Used

router = APIRouter(tags=["limits"])


@router.get(
    "/v1/usage",
    summary="Show what was used",
    responses=problem_responses(["unauthorized"]),
)
@needs_key()
async def show_usage(request: Request, shared: Shared) -> UsageReport:
    """Requests and seconds of audio by key, since this process started.

    A key of the scope `metrics` sees all keys, another one sees itself.
    """
    caller: Caller = request.state.caller
    by_key = shared.usage.by_key
    seen = by_key if caller.sees_all else {caller.key: by_key.get(caller.key, Used())}
    rows = sorted(seen.items(), key=lambda row: row[0] or "")
    return UsageReport(
        since=shared.usage.since,
        data=[
            KeyUsage(key=key, requests=used.requests, audio_seconds=round(used.audio_s, 3))
            for key, used in rows
        ],
    )
