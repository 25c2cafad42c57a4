"""When to try again, and for how long."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from viola.client.errors import Failure


@dataclass(frozen=True)
class Retries:
    """How long a call goes on trying.

    The service says when to come again (`Retry-After`); where it does not, the pauses double. Each
    is drawn out by up to a half, so that those who were refused together do not come together.

    Attributes:
        budget_s: seconds that one call may spend on pauses; 0: it never tries again.
        unfound_s: the same while no answer has ever come from there: it may be the wrong address.
        first_s: the first pause where the service names none.
        most_s: the longest such pause.
    """

    budget_s: float = 300.0
    unfound_s: float = 10.0
    first_s: float = 0.25
    most_s: float = 15.0
    draw: Callable[[], float] = random.random

    def pause_s(
        self,
        failure: Failure,
        attempt: int,
        spent_s: float,
        *,
        repeats: bool = False,
        found: bool = True,
    ) -> float | None:
        """Seconds until the next attempt; None: there is none.

        Args:
            failure: of the last attempt.
            attempt: how many attempts there were before that one.
            spent_s: how many seconds of the budget are gone.
            repeats: the call is not idempotent.
            found: an answer has come from there before, to this call or another.
        """
        if not failure.may_pass or (repeats and not failure.is_undone):
            return None
        asked_s = failure.retry_after_s
        if asked_s is None:
            asked_s = min(self.most_s, self.first_s * 2**attempt)
        pause_s = asked_s * (1 + self.draw() / 2)
        budget_s = self.budget_s if found else min(self.budget_s, self.unfound_s)
        return pause_s if spent_s + pause_s <= budget_s else None


def checked(given: Retries) -> Retries:
    """The same.

    Raises:
        TypeError: it is something else, as a number.
    """
    if not isinstance(given, Retries):
        raise TypeError(f"retries = {given!r}; expected viola.Retries(budget_s=...), in seconds")
    return given
