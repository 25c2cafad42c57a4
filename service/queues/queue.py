"""What jobs need of a queue; two libraries provide it, each for one kind of database.

A queue gives each step to one worker at a time, in the order in which steps of its kind were put,
and gives it again if the worker does not finish: at least once. Each kind has a line of its own, so
that a webhook does not wait for jobs that were submitted before. That a job has its effects only
once is ensured by its row in the store (`service/collections/attempts.py`).
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from sqlalchemy import Connection

from service.collections.job_records import Step

Handle = Callable[[Step, str], Awaitable[None]]
"""Does a step of the job of that name."""


class Again(Exception):
    """The step is to be done once more, in so many seconds."""

    def __init__(self, after_s: float = 0.0) -> None:
        super().__init__(f"again in {after_s:g} s")
        self.after_s = after_s


class Queue(Protocol):
    """Steps of jobs that wait, on the disk."""

    def put(self, connection: Connection, step: Step, job: str) -> None:
        """Add a step at the end; it is there if the connection's transaction ends well."""

    async def work(self, kind: Step, handle: Handle, n_at_once: int) -> None:
        """Do steps of a kind, so many at once, until cancelled; what is in hand is done again."""

    def is_lost(self) -> bool:
        """Whether it lacks steps of jobs that wait, and is to be filled again."""

    def close(self) -> None:
        """Let go of the disk."""
