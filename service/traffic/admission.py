"""A limit on requests in progress: one more than that is refused at once, not kept waiting."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.problems import Problem

RETRY_AFTER_S = 1


class Admission:
    """Counts requests in progress; used on the event loop alone, so a plain number does.

    Args:
        max_inflight: requests in progress at the most.
        max_queue_s: seconds of audio that a new request may have to wait behind.
        ahead_s: tells how many it would wait behind now.
    """

    def __init__(
        self,
        max_inflight: int,
        max_queue_s: float = math.inf,
        ahead_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.max_inflight, self.max_queue_s = max_inflight, max_queue_s
        self.inflight = 0
        self._ahead_s = ahead_s

    def check(self) -> None:
        """Refuse another request where there is no room for it.

        Raises:
            Problem: if every place is taken, or the queue is full.
        """
        if self.inflight >= self.max_inflight:
            detail = f"{self.inflight} requests are in hand, as many as are accepted at once."
            raise overloaded(detail, self.max_inflight, self.inflight + 1, "requests")
        if (ahead_s := self._ahead_s()) > self.max_queue_s:
            detail = f"{ahead_s:.0f} s of audio wait already; at most {self.max_queue_s:g} s may."
            raise overloaded(detail, self.max_queue_s, ahead_s, "s")

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one place while a request is read and answered.

        Raises:
            Problem: if there is none.
        """
        self.check()
        self.inflight += 1
        try:
            yield
        finally:
            self.inflight -= 1


def overloaded(detail: str, limit: float, observed: float, unit: str) -> Problem:
    """The refusal of a request for which there is no room now; it may be sent again in a second."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return Problem("overloaded", detail, limit=limit, observed=observed, unit=unit, headers=headers)
