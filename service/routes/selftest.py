"""`GET /v1/selftest`: the golden values of everything that is served, computed now."""

from fastapi import APIRouter, Response

from service.context import Context, Shared
from service.inference.selftest import report, self_tests
from service.openapi import Responses, problem_responses
from service.reports import SelfTestReport
from service.traffic.access import needs_key
from service.traffic.patience import within

router = APIRouter(tags=["health"])

_ANSWERS: Responses = {
    503: {"model": SelfTestReport, "description": "A test fails, or nothing is served."}
}


@router.get(
    "/v1/selftest",
    summary="Prove the models now",
    response_model_exclude_none=True,
    responses=_ANSWERS | problem_responses(["unauthorized", "forbidden", "deadline"]),
)
@needs_key("metrics", drained=True)
async def run_selftest(shared: Shared, response: Response) -> SelfTestReport:
    """Embed the reference signal with every model, classify the reference vector with every head.

    One test runs at a time, in the place of no request; who asks meanwhile, or within seconds
    after it, gets its report. 503 if a test fails.
    """
    found = await within(
        shared.settings.request_timeout_s,
        shared.self_test.get(shared.catalogue, lambda: _report(shared)),
    )
    response.status_code = 200 if found.status == "passed" else 503
    return found


async def _report(shared: Context) -> SelfTestReport:
    return report([await shared.engine.infer(test) for test in self_tests(shared.catalogue)])
