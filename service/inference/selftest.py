"""Self-tests on request: whether each served model still computes what its card says."""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import structlog

from models.modelfile import ModelFileError
from service.inference.catalogue import Catalogue, Served
from service.reports import SelfTest, SelfTestReport

log = structlog.get_logger()


Test = Callable[[], SelfTest]


def self_tests(catalogue: Catalogue) -> list[Test]:
    """A test for each file that is served, to be called in a thread for inference."""
    return [_test(item) for item in catalogue]


def report(tests: Iterable[SelfTest]) -> SelfTestReport:
    """The report on tests that have run: passed if there are any and all of them have passed."""
    done = list(tests)
    passed = bool(done) and all(test.status == "passed" for test in done)
    return SelfTestReport(status="passed" if passed else "failed", tests=done)


def _test(item: Served[Any]) -> Test:
    def test() -> SelfTest:
        started = perf_counter()
        difference: float | None = None
        reason: str | None = None
        try:
            difference = item.network.self_test()
        except ModelFileError as error:
            reason = str(error)  # a sentence of ours: the card's name and two numbers
        except Exception:
            log.exception("self-test failed", kind=item.kind.name, name=item.name)
            reason = "it cannot be run; the log says why"
        return SelfTest(
            name=item.name,
            kind=item.kind.name,
            space_id=item.space_id,
            status="failed" if reason else "passed",
            difference=difference,
            tolerance=item.kind.tolerance(item.network),
            reason=reason,
            ms=round((perf_counter() - started) * 1000, 1),
        )

    return test
