"""How slowly a body may arrive: a client that holds a place must send."""

import asyncio
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem


class BodyPace:
    """Gives up a body that arrives more slowly than `bytes_per_s`, after `grace_s` for free.

    Only time spent waiting for the client counts, so a service that is busy blames nobody, and a
    body of any length may arrive as long as it moves.
    """

    def __init__(self, app: ASGIApp, bytes_per_s: float, grace_s: float) -> None:
        self.app = app
        self.bytes_per_s, self.grace_s = bytes_per_s, grace_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the request with a `receive` that watches the clock."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        waited_s, n_bytes, is_whole = 0.0, 0, False

        async def paced() -> Message:
            nonlocal waited_s, n_bytes, is_whole
            if is_whole:  # what comes now is the end of the connection, and that may take its time
                return await receive()
            left_s = self.grace_s + n_bytes / self.bytes_per_s - waited_s
            started = monotonic()
            try:
                async with asyncio.timeout(left_s):
                    message = await receive()
            except TimeoutError:
                raise self._problem(n_bytes, waited_s + monotonic() - started) from None
            waited_s += monotonic() - started
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            return message

        await self.app(scope, paced, send)

    def _problem(self, n_bytes: int, waited_s: float) -> Problem:
        return Problem(
            "body-timeout",
            f"{n_bytes} bytes of the body had arrived after {waited_s:.1f} s; after "
            f"{self.grace_s:g} s at least {self.bytes_per_s:g} bytes a second are expected.",
            limit=self.bytes_per_s,
            observed=round(n_bytes / waited_s, 3) if waited_s else 0.0,
            unit="bytes/s",
            headers={"Connection": "close"},
        )
