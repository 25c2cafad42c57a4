"""`/livez`, `/readyz`: whether the process answers, and whether it can serve."""

from fastapi import APIRouter, Response

from service.catalogue import Catalogue
from service.context import Shared
from service.schemas import Liveness, ModelStatus, Readiness

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?")
async def live() -> Liveness:
    """Answered by the event loop alone."""
    return Liveness()


@router.get("/healthz", include_in_schema=False, response_model_exclude_none=True)
@router.get(
    "/readyz",
    response_model_exclude_none=True,
    summary="Can requests be served?",
    responses={503: {"model": Readiness, "description": "The default model is not usable."}},
)
async def ready(shared: Shared, response: Response) -> Readiness:
    """Each model with its check against the golden vector; 503 if the default is not usable."""
    catalogue = shared.catalogue
    response.status_code = 200 if catalogue.is_ready else 503
    return Readiness(
        status="ready" if catalogue.is_ready else "not ready", models=_statuses(catalogue)
    )


def _statuses(catalogue: Catalogue) -> list[ModelStatus]:
    served = [
        ModelStatus(
            name=name,
            status="ready",
            space_id=model.encoder.card.space_id,
            golden_error=model.golden_error,
        )
        for name, model in catalogue.served.items()
    ]
    refused = [
        ModelStatus(file=item.file, status="refused", reason=item.reason)
        for item in catalogue.refused
    ]
    return served + refused
