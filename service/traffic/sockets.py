"""WebSockets: a bound on the time in which a client takes what it is sent."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.traffic.stalls import StallTimer


def bounded_socket(write_timeout_s: float) -> type[WebSocketsSansIOProtocol]:
    """Uvicorn's protocol, which cuts the line of a client that takes nothing for so long."""

    class BoundedSocket(WebSocketsSansIOProtocol):
        """A connection whose client has to read."""

        _stall: StallTimer

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._stall = StallTimer(transport, write_timeout_s)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stall.stop()
            super().connection_lost(exc)

        async def send(self, message: Any) -> None:
            await super().send(message)
            ended = not message.get("more_body", False)
            if message["type"] == "websocket.http.response.body" and ended:
                self.handshake_complete = True  # else uvicorn logs an error: it had no answer

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stall.start()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stall.stop()

    return BoundedSocket
