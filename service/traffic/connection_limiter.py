"""A limit on connections, with a few more for health checks.

A connection beyond the limit is served too, but only by routes that are probes; every other request
on it is refused and ends it. Of those few the one that has waited longest makes room for the
newest, so that silent ones cannot keep a probe out.
"""

from typing import Generic, TypeVar

from service.problems import Problem
from service.traffic.admission import overloaded

RESERVE = 32  # connections beyond the limit
SURPLUS = "surplus_connection"  # in a request's state: the Problem of one that came beyond it

C = TypeVar("C")


class ConnectionLimiter(Generic[C]):
    """Tells which connections are beyond the limit; used on the event loop alone."""

    def __init__(self, max_connections: int, reserve: int = RESERVE) -> None:
        self.max_connections, self.reserve = max_connections, reserve
        self._surplus: dict[C, None] = {}  # in the order of their coming

    def enter(self, connection: C, n_connected: int) -> C | None:
        """Add a new connection, one of `n_connected`; returns one that has to be closed for it."""
        if n_connected - len(self._surplus) <= self.max_connections:
            return None
        self._surplus[connection] = None
        return next(iter(self._surplus)) if len(self._surplus) > self.reserve else None

    def leave(self, connection: C) -> None:
        """Forget a connection that has ended."""
        self._surplus.pop(connection, None)

    def refusal(self, connection: C, n_connected: int) -> Problem | None:
        """The problem that requests on this connection get; None where there is room for it."""
        if connection not in self._surplus:
            return None
        if n_connected - len(self._surplus) < self.max_connections:
            del self._surplus[connection]
            return None
        detail = f"{n_connected} connections are open; at most {self.max_connections} may be."
        return overloaded(detail, self.max_connections, n_connected, "connections")
