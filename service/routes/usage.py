"""`GET /v1/usage`: who has used how much, in this process or in all replicas that share a Redis."""

from fastapi import APIRouter, Request

from service.context import Shared
from service.openapi import problem_responses
from service.reports import KeyUsage, UsageReport
from service.traffic.access import needs_key
from service.traffic.quotas import Caller
from service.traffic.shared_accounts import SharedUse, Sums

router = APIRouter(tags=["limits"])


@router.get(
    "/v1/usage",
    summary="Show what was used",
    responses=problem_responses(["unauthorized"]),
)
@needs_key()
async def show_usage(request: Request, shared: Shared) -> UsageReport:
    """Requests and seconds of audio by key: of all replicas where they share a Redis that answers.

    Else of this process since it started. A key of the scope `metrics` sees all keys, another one
    sees itself.
    """
    caller: Caller = request.state.caller
    everywhere = await shared.usage.of_all_replicas()
    use = everywhere or SharedUse(shared.usage.since, shared.usage.by_key)
    seen = use.by_key if caller.sees_all else {caller.key: use.by_key.get(caller.key, Sums())}
    rows = sorted(seen.items(), key=lambda row: row[0] or "")
    return UsageReport(
        since=use.since,
        replicas="all" if everywhere else "this",
        data=[
            KeyUsage(key=key, requests=sums.requests, audio_seconds=round(sums.audio_s, 3))
            for key, sums in rows
        ],
    )
