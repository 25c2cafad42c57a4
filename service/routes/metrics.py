"""`GET /metrics`: for Prometheus, and nobody else."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.context import Shared
from service.traffic.access import needs_key

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
@needs_key("metrics")
async def show_metrics(shared: Shared) -> Response:
    """Counters and state in Prometheus' text format."""
    return Response(shared.metrics.page(), media_type=CONTENT_TYPE_LATEST)
