"""Connections to PostgreSQL that are given up when the server hangs.

While a server is stopped (SIGSTOP, a paused machine), its system still acknowledges packets, so
that no network timeout fires. A statement may rightly take minutes, too. So a thread that has
waited for `HANG_S` opens another connection: if the server does not answer that either, it hangs.
From then on nobody waits: calls fail at once, until one of them has reached the server again.
"""

import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg.abc import PQGen

T = TypeVar("T")

CONNECT_S = 5
HANG_S = 5.0  # without a byte, until the server is asked whether it answers
RETRY_S = 1.0  # between two looks for a server that hangs

log = structlog.get_logger()


class PostgresHangs(psycopg.OperationalError):
    """The server does not answer."""


class PostgresLink:
    """One server, as the threads of this process see it.

    Attributes:
        is_up: whether it answered when it was last asked.
    """

    def __init__(self) -> None:
        self.is_up = True
        self._arguments: Sequence[Any] = ()
        self._options: dict[str, Any] = {}
        self._looking = threading.Lock()
        self._looked_at = 0.0

    def connect(self, arguments: Sequence[Any], options: dict[str, Any]) -> "WatchedConnection":
        """A new connection; while the server hangs one thread tries, and the others do not wait.

        Args:
            arguments: of `psycopg.connect`, by position.
            options: of `psycopg.connect`, by name.

        Raises:
            psycopg.Error: there is none.
        """
        self._arguments, self._options = arguments, options
        if self.is_up:
            return self._connect()
        if not self._looking.acquire(blocking=False):
            raise PostgresHangs("the server hangs")
        try:
            if monotonic() < self._looked_at + RETRY_S:
                raise PostgresHangs("the server hangs")
            return self._connect()
        finally:
            self._looking.release()

    def answers(self) -> bool:
        """Whether the server answers; of several threads one asks it, for all of them."""
        came_at = monotonic()
        with self._looking:
            if self._looked_at < came_at:
                self._look()
            return self.is_up

    def _look(self) -> None:
        options = self._options | {"connect_timeout": CONNECT_S}
        try:
            psycopg.connect(*self._arguments, **options).close()
        except psycopg.errors.ConnectionTimeout:
            self._note(is_up=False)
        except psycopg.Error:  # it answers, if only with an error
            self._note(is_up=True)
        else:
            self._note(is_up=True)

    def _connect(self) -> "WatchedConnection":
        try:
            connection = WatchedConnection.connect(*self._arguments, **self._options)
        except psycopg.errors.ConnectionTimeout:
            self._note(is_up=False)
            raise
        self._note(is_up=True)
        connection.link = self
        return connection

    def _note(self, *, is_up: bool) -> None:
        self._looked_at = monotonic()
        if is_up != self.is_up:
            self.is_up = is_up
            if is_up:
                log.info("postgresql answers again")
            else:
                log.error("postgresql hangs")


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that is closed when its server hangs."""

    link: PostgresLink | None = None

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait for the server's answer.

        Raises:
            PostgresHangs: it will not come.
        """
        if self.link is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_watched(gen, self.link), *args, **kwargs)
        except PostgresHangs:
            self.pgconn.finish()
            raise


def _watched(gen: PQGen[T], link: PostgresLink) -> PQGen[T]:
    """The same steps; psycopg looks in ten times a second while nothing comes."""
    heard_at = monotonic()
    try:
        wanted = next(gen)
        while True:
            came = yield wanted
            if came:
                heard_at = monotonic()
            elif monotonic() > heard_at + HANG_S:
                if not link.answers():
                    raise PostgresHangs("the server hangs")
                heard_at = monotonic()
            wanted = gen.send(came)
    except StopIteration as end:
        value: T = end.value
        return value
