"""`GET /v1/selftest`: the golden values of everything that is served, computed now."""

from fastapi import APIRouter, Response

from service.context import Shared
from service.inference.selftest import SelfTestReport, report, self_tests

router = APIRouter(tags=["health"])

_FAILED = {"model": SelfTestReport, "description": "A test fails, or nothing is served."}


@router.get(
    "/v1/selftest",
    summary="Prove the models now",
    response_model_exclude_none=True,
    responses={503: _FAILED},
)
async def run_selftest(shared: Shared, response: Response) -> SelfTestReport:
    """Embed the reference signal with every model, classify the reference vector with every head.

    It takes a request's place and waits its turn like one; 503 if a test fails.
    """
    with shared.admission.slot():
        tests = self_tests(shared.catalogue)
        done = report([await shared.engine.infer(test) for test in tests])
    response.status_code = 200 if done.status == "passed" else 503
    return done
