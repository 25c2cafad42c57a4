"""What fails and may come back: the log has a line when it goes and one when it is back."""

from time import monotonic
from typing import Any, Literal

import structlog

log = structlog.get_logger()


class Outage:
    """One thing that may fail, as those who try it find it, in any thread.

    Args:
        lost: the line when it begins to fail.
        back: the line when it works again; else there is none.
        steady_s: seconds without a failure after which it works again: some of it may work all
            the time.
        level: of the line when it begins to fail.
    """

    def __init__(
        self,
        lost: str,
        back: str | None = None,
        *,
        steady_s: float = 0.0,
        level: Literal["warning", "error"] = "error",
    ) -> None:
        self._lost, self._back, self._steady_s, self._level = lost, back, steady_s, level
        self._failed_at: float | None = None  # for the last time; None while it works

    def fails(self, reason: str, **facts: Any) -> None:
        """Note that it has failed; the facts stand in the line too."""
        was_there, self._failed_at = self._failed_at is None, monotonic()
        if was_there:
            getattr(log, self._level)(self._lost, reason=reason, **facts)

    def works(self) -> None:
        """Note that it has worked."""
        if self._failed_at is None or monotonic() < self._failed_at + self._steady_s:
            return
        self._failed_at = None
        if self._back is not None:
            log.info(self._back)
