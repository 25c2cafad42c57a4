"""What every request passes before the routes: an id, a count of bytes, a line in the log."""

import re
import uuid
from dataclasses import dataclass
from time import perf_counter

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import path_within, problem_response
from service.problems import Problem
from service.telemetry.metrics import Metrics
from service.traffic.quotas import Caller

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)

log = structlog.get_logger()


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
        announced = _content_length(scope)
        n_bytes = 0

        async def limited() -> Message:
            nonlocal n_bytes
            # Of the route, if it takes longer bodies
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


class RequestContext:
    """Gives a request its id, its answer the standing headers, log and metrics a note of both.

    Whatever no handler caught ends here as a 500 that says nothing about the inside.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the log line is written even when it fails."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = perf_counter()
        traffic = _Traffic(receive, send, request_id, started)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, traffic.receive, traffic.send)
            except Exception:
                log.exception("request failed")
                if traffic.status:  # too late for another answer: the server cuts the connection
                    raise
                problem = scope["state"]["problem"] = _internal()
                response = problem_response(problem, request_id, path_within(scope))
                await response(scope, traffic.receive, traffic.send)
            finally:
                self._note(scope, traffic, perf_counter() - started)

    def _note(self, scope: Scope, traffic: "_Traffic", seconds: float) -> None:
        state, route = scope["state"], _route(scope)
        caller: Caller | None = state.get("caller")
        problem: Problem | None = state.get("problem")
        log.info(
            "request",
            method=scope["method"],
            route=route,
            status=traffic.status,
            ms=round(seconds * 1000, 1),
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            **({"key": caller.key} if caller and caller.key else {}),
            **({"problem": problem.kind.slug, "detail": problem.detail} if problem else {}),
        )
        self.metrics.observe_request(
            route, scope["method"], traffic.status, seconds, traffic.bytes_in
        )
        if problem:
            self.metrics.rejected.labels(problem.kind.slug).inc()


@dataclass
class _Traffic:
    """One request's channel, watched."""

    receive_: Receive
    send_: Send
    request_id: str
    started: float
    status: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0

    async def receive(self) -> Message:
        message = await self.receive_()
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            total = f"total;dur={(perf_counter() - self.started) * 1000:.1f}"
            stages = headers.get("Server-Timing")
            headers["Server-Timing"] = f"{stages}, {total}" if stages else total
        self.bytes_out += len(message.get("body", b""))
        await self.send_(message)


def _internal() -> Problem:
    return Problem("internal", "The request failed inside the service.")


def request_id_of(scope: Scope) -> str:
    """The client's own id if it is harmless, else a new one."""
    offered = Headers(scope=scope).get("x-request-id", "")
    return offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex


def _content_length(scope: Scope) -> int:
    announced = Headers(scope=scope).get("content-length", "")
    return int(announced) if announced.isascii() and announced.isdigit() else 0


def _route(scope: Scope) -> str | None:
    """The path's template, never what the client wrote."""
    return getattr(scope.get("route"), "path", None)
