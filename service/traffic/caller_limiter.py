"""A limit on the requests in progress of each caller, so that none takes all places."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.problems import Problem
from service.traffic.quotas import Caller

RETRY_AFTER_S = 1


class CallerLimiter:
    """Counts the requests of each caller; used on the event loop alone.

    Args:
        usual: the limit of callers whose key sets no other.
    """

    def __init__(self, usual: int | None = None) -> None:
        self.usual = usual
        self._inflight: Counter[tuple[str | None, str]] = Counter()

    def limit(self, caller: Caller) -> int | None:
        """The caller's limit; None: as many as there are places."""
        return self.usual if caller.max_inflight is None else caller.max_inflight

    @contextmanager
    def slot(self, caller: Caller) -> Iterator[None]:
        """Count a request of the caller while the block runs.

        Raises:
            Problem: the caller has taken all of them.
        """
        account, limit = caller.account, self.limit(caller)
        if limit is not None and self._inflight[account] >= limit:
            n = self._inflight[account] + 1
            raise Problem(
                "share-exceeded",
                f"This would be request {n} of the same caller in hand; {limit} are granted.",
                limit=limit,
                observed=n,
                unit="requests",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self._inflight[account] += 1
        try:
            yield
        finally:
            self._inflight[account] -= 1
            if not self._inflight[account]:
                del self._inflight[account]  # or the table would grow with every address
