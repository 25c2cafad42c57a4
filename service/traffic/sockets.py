"""WebSockets: a bound on the time in which a client takes what it is sent."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


def bounded_socket(write_timeout_s: float) -> type[WebSocketsSansIOProtocol]:
    """Uvicorn's protocol, which cuts the line of a client that takes nothing for so many seconds.

    To close such a connection is not enough: that waits for what is still to be sent, for ever.
    """

    class BoundedSocket(WebSocketsSansIOProtocol):
        """A connection whose client has to read."""

        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # to be told when all has left

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        async def send(self, message: Any) -> None:
            await super().send(message)
            ended = not message.get("more_body", False)
            if message["type"] == "websocket.http.response.body" and ended:
                self.handshake_complete = True  # else uvicorn logs an error: it had no answer

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(write_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._forget()

        def _forget(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

    return BoundedSocket
