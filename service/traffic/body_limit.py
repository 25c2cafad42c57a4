"""Limits the bytes of a request body."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem


class BodyLimit:
    """Stops a body that is too large when it is read: by what it announces, then by what arrives.

    Starlette's own limiter would answer with plain text, without the limit and the request id.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the request with a `receive` that counts."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        announced = content_length(scope)
        n_bytes = 0

        async def limited() -> Message:
            nonlocal n_bytes
            # A route that takes longer bodies has set its own limit
            max_bytes = scope.get("state", {}).get("max_body_bytes", self.max_bytes)
            # Before the first byte, and before the client is told to go on
            self._check(announced, max_bytes)
            message = await receive()
            n_bytes += len(message.get("body", b""))
            self._check(n_bytes, max_bytes)
            return message

        await self.app(scope, limited, send)

    def _check(self, n_bytes: int, max_bytes: int) -> None:
        if n_bytes > max_bytes:
            raise Problem(
                "body-too-large",
                f"The body has {n_bytes} bytes or more; at most {max_bytes} are accepted.",
                limit=max_bytes,
                observed=n_bytes,
                unit="bytes",
            )


def content_length(scope: Scope) -> int:
    """The length of the body that the head announces; 0 where it announces none."""
    announced = Headers(scope=scope).get("content-length", "")
    return int(announced) if announced.isascii() and announced.isdigit() else 0
