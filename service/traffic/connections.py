"""Connections that only talk: uvicorn bounds a request's head in bytes, this in time."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_HEAD_BYTES = 16 * 1024  # request line and headers; h11 answers more with 400


def timed_protocol(head_timeout_s: float) -> type[H11Protocol]:
    """Uvicorn's HTTP/1.1, which hangs up on a head that has not come whole in so many seconds.

    Between requests uvicorn's own keep-alive timeout counts, but only until the first byte of the
    next one: a client that sends a byte now and then (slowloris) would stay for ever. So would one
    that goes on sending a body that was refused before it was read.
    """

    class TimedProtocol(H11Protocol):
        """A connection that has to say what it wants."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _only_talks(self) -> bool:
            """Whether what comes is the beginning of a head, or a body nobody waits for."""
            is_answered = self.cycle is not None and self.cycle.response_complete
            state = self.conn.their_state
            return state is h11.IDLE or (state is h11.SEND_BODY and is_answered)

        def _watch(self) -> None:
            """Keep one timer running for as long as that is so."""
            if not self._only_talks():
                self._forget()
            elif self._timer is None:
                self._timer = self.loop.call_later(head_timeout_s, self._hang_up)

        def _forget(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _hang_up(self) -> None:
            self._timer = None
            if self._only_talks() and not self.transport.is_closing():
                self.transport.close()

    return TimedProtocol
