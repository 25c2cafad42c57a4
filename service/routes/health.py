"""`/livez`, `/readyz`: whether the process answers, and whether it can serve."""

from typing import Literal

from fastapi import APIRouter, Response

from service.context import Shared
from service.inference.catalogue import Catalogue
from service.inference.kind import Kind
from service.reports import Liveness, ModelStatus, Readiness
from service.traffic.access import probe
from service.traffic.quotas import Quotas

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?")
@probe
async def live() -> Liveness:
    """Answered by the event loop alone."""
    return Liveness()


@router.get("/healthz", include_in_schema=False, response_model_exclude_none=True)
@router.get(
    "/readyz",
    response_model_exclude_none=True,
    summary="Can requests be served?",
    responses={503: {"model": Readiness, "description": "`reasons` says why not."}},
)
@probe
async def ready(shared: Shared, response: Response) -> Readiness:
    """Each model and classifier with its golden check at the start.

    503 if the default model is not usable, if inference hangs, and while shutting down.
    """
    catalogue, complaints = shared.catalogue, shared.complaints()
    response.status_code = 503 if complaints else 200
    return Readiness(
        status="not ready" if complaints else "ready",
        reasons=complaints,
        redis=_redis(shared.quotas),
        **{f"{kind.name}s": _statuses(catalogue, kind) for kind in catalogue.by_kind},
    )


def _redis(quotas: Quotas) -> Literal["up", "down"] | None:
    """Whether Redis is up; readiness does not depend on it, as no restart of a replica mends it."""
    if quotas.shared is None:
        return None
    return "up" if quotas.shared.link.is_up else "down"


def _statuses(catalogue: Catalogue, kind: Kind) -> list[ModelStatus]:
    ready = [
        ModelStatus(
            name=item.name,
            status="ready",
            space_id=item.space_id,
            golden_error=item.golden_error,
        )
        for item in catalogue.by_kind[kind].values()
    ]
    return ready + [
        ModelStatus(file=item.file, status="refused", reason=item.reason)
        for item in catalogue.refused
        if item.kind is kind
    ]
