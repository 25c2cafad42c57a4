"""Whether what is served still computes what its cards say, run when somebody asks."""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Literal

import structlog
from pydantic import BaseModel, Field

from models.modelfile import GOLDEN_TOLERANCE, ModelFileError, golden_tolerance
from service.inference.catalogue import Catalogue, Served, ServedHead

log = structlog.get_logger()


class SelfTest(BaseModel):
    """One file's golden values, computed now."""

    name: str
    kind: Literal["model", "classifier"]
    space_id: str
    status: Literal["passed", "failed"]
    difference: float | None = Field(
        default=None,
        description="Largest difference from the golden values, relative to the largest of them.",
    )
    tolerance: float = Field(default=GOLDEN_TOLERANCE, description="Largest that passes.")
    reason: str | None = None
    ms: float = Field(description="How long it took, without the wait for its turn.")


class SelfTestReport(BaseModel):
    """All golden values, computed now."""

    status: Literal["passed", "failed"]
    tests: list[SelfTest]


Test = Callable[[], SelfTest]


def self_tests(catalogue: Catalogue) -> list[Test]:
    """A test for each model and each classifier, to be called where inference may run."""
    tests: list[Test] = []
    for model in catalogue.served.values():
        tolerance = golden_tolerance(model.encoder.card)
        tests.append(_test("model", model, model.encoder.self_test, tolerance))
    for head in catalogue.heads.values():
        tests.append(_test("classifier", head, head.classifier.self_test, GOLDEN_TOLERANCE))
    return tests


def report(tests: Iterable[SelfTest]) -> SelfTestReport:
    """Passed if there is anything to test and all of it passes."""
    done = list(tests)
    passed = bool(done) and all(test.status == "passed" for test in done)
    return SelfTestReport(status="passed" if passed else "failed", tests=done)


def _test(
    kind: Literal["model", "classifier"],
    item: Served | ServedHead,
    run: Callable[[], float],
    tolerance: float,
) -> Test:
    def test() -> SelfTest:
        started = perf_counter()
        difference: float | None = None
        reason: str | None = None
        try:
            difference = run()
        except ModelFileError as error:
            reason = str(error)  # a sentence of ours: the card's name and two numbers
        except Exception:
            log.exception("self-test failed", kind=kind, name=item.name)
            reason = "it cannot be run; the log says why"
        return SelfTest(
            name=item.name,
            kind=kind,
            space_id=item.space_id,
            status="failed" if reason else "passed",
            difference=difference,
            tolerance=tolerance,
            reason=reason,
            ms=round((perf_counter() - started) * 1000, 1),
        )

    return test
