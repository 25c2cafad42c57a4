"""How many requests may be in hand at once; one more is refused at once, not kept waiting."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.problems import Problem

RETRY_AFTER_S = 1


class Admission:
    """Counts requests in hand; used on the event loop alone, so a plain number does."""

    def __init__(self, max_inflight: int) -> None:
        self.max_inflight = max_inflight
        self.inflight = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one place while a request is read and answered.

        Raises:
            Problem: if every place is taken.
        """
        if self.inflight >= self.max_inflight:
            raise Problem(
                "overloaded",
                f"{self.inflight} requests are in hand, as many as are accepted at once.",
                limit=self.max_inflight,
                observed=self.inflight + 1,
                unit="requests",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self.inflight += 1
        try:
            yield
        finally:
            self.inflight -= 1
