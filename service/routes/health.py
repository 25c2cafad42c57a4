"""`/livez`, `/readyz`: whether the process answers, and whether it can serve."""

from collections.abc import Iterable

from fastapi import APIRouter, Response

from service.context import Shared
from service.inference.catalogue import Refused, Served, ServedHead
from service.schemas import Liveness, ModelStatus, Readiness
from service.traffic.access import probe

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
        models=_statuses(catalogue.served.values(), catalogue.refused, is_head=False),
        classifiers=_statuses(catalogue.heads.values(), catalogue.refused, is_head=True),
    )


def _statuses(
    served: Iterable[Served | ServedHead], refused: Iterable[Refused], *, is_head: bool
) -> list[ModelStatus]:
    ready = [
        ModelStatus(
            name=item.name,
            status="ready",
            space_id=item.space_id,
            golden_error=item.golden_error,
        )
        for item in served
    ]
    return ready + [
        ModelStatus(file=item.file, status="refused", reason=item.reason)
        for item in refused
        if item.is_head == is_head
    ]
