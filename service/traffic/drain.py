"""Graceful shutdown: readiness turns red, new requests are refused, those in progress finish."""

from collections.abc import Callable
from time import monotonic

from service.problems import Problem

RETRY_AFTER_S = 5  # by then another instance answers under the same address


def cut_short() -> Problem:
    """The problem of a request that was not finished when the time for shutting down was up."""
    detail = "The service is shutting down, and the answer was not ready in time."
    headers = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
    return Problem("draining", detail, headers=headers)


class Drain:
    """How far the shutdown has come.

    For `delay_s` after `begin` readiness is red but requests are still taken, since balancers look
    only now and then; after that they are refused. It is over when nothing is in hand any more, or
    `timeout_s` after `begin`.
    """

    def __init__(
        self, delay_s: float = 0.0, timeout_s: float = 25.0, clock: Callable[[], float] = monotonic
    ) -> None:
        self.delay_s, self.timeout_s = delay_s, timeout_s
        self._clock = clock
        self._began: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the shutdown has begun."""
        return self._began is not None

    def begin(self, *, at_once: bool = False) -> None:
        """Start the shutdown; `at_once` leaves out the delay."""
        if at_once:
            self.delay_s = 0.0
        self._began = self._clock() if self._began is None else self._began

    def check(self) -> None:
        """Refuse new work once the delay is over.

        Raises:
            Problem: the service is shutting down.
        """
        if self._began is not None and self._elapsed_s() >= self.delay_s:
            detail = "The service is shutting down and takes no new requests."
            raise Problem("draining", detail, headers={"Retry-After": str(RETRY_AFTER_S)})

    def is_over(self, n_busy: int) -> bool:
        """Whether the process may go, with so many requests in hand."""
        if self._began is None or self._elapsed_s() < self.delay_s:
            return False
        return n_busy == 0 or self._elapsed_s() >= self.timeout_s

    def _elapsed_s(self) -> float:
        assert self._began is not None
        return self._clock() - self._began
