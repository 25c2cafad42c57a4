"""Notes every request, with its id, bytes and time, as a line of the log and in the metrics."""

import asyncio
import re
import uuid
from dataclasses import dataclass
from time import perf_counter

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import path_within, problem_response
from service.problems import Problem
from service.telemetry.metrics import WEBSOCKET, Metrics
from service.traffic.connection_limiter import SURPLUS
from service.traffic.drain import Drain, cut_short
from service.traffic.quotas import Caller
from service.traffic.usage import Usage

SWITCHING_PROTOCOLS = 101
NO_CODE = 1005  # of a WebSocket that ended without one

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)

log = structlog.get_logger()


class RequestContext:
    """Gives each request an id, adds headers to its answer, and notes both in log and metrics.

    A WebSocket is a request like others. Whatever no handler caught ends here as a 500 that says
    nothing about the inside.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, drain: Drain, usage: Usage) -> None:
        self.app = app
        self.metrics, self.drain, self.usage = metrics, drain, usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the log line is written even when it fails."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        request_id = request_id_of(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started = perf_counter()
        is_last = self.drain.has_begun or SURPLUS in state
        traffic = _Traffic(receive, send, request_id, started, is_last=is_last)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, traffic.receive, traffic.send)
            except asyncio.CancelledError:  # by the server, which is leaving and can wait no longer
                if traffic.status:
                    raise
                await self._fail(scope, traffic, cut_short())
            except Exception:
                log.exception("request failed")
                if traffic.status:  # too late for another answer: the server cuts the connection
                    raise
                await self._fail(scope, traffic, _internal())
            finally:
                self._note(scope, traffic, perf_counter() - started)

    async def _fail(self, scope: Scope, traffic: "_Traffic", problem: Problem) -> None:
        scope["state"]["problem"] = problem
        response = problem_response(problem, traffic.request_id, path_within(scope))
        await response(scope, traffic.receive, traffic.send)

    def _note(self, scope: Scope, traffic: "_Traffic", seconds: float) -> None:
        state, route, method = scope["state"], _route(scope), scope.get("method", WEBSOCKET)
        caller: Caller | None = state.get("caller")
        problem: Problem | None = state.get("problem")
        log.info(
            "request",
            method=method,
            route=route,
            status=traffic.status,
            ms=round(seconds * 1000, 1),
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            **({"code": traffic.close_code} if traffic.close_code else {}),
            **({"key": caller.key} if caller and caller.key else {}),
            **(
                {"audio_s": round(caller.meter.audio_s, 3)}
                if caller and caller.meter.audio_s
                else {}
            ),
            **({"problem": problem.kind.slug, "detail": problem.detail} if problem else {}),
        )
        self.metrics.observe_request(route, method, traffic.status, seconds, traffic.bytes_in)
        if caller:
            self.usage.asked(caller)
        if problem:
            self.metrics.rejected.labels(problem.kind.slug).inc()


@dataclass
class _Traffic:
    """One request's messages, with counts of what passes.

    Attributes:
        is_last: the connection is to end with the answer.
        status: of the answer; 101 of a WebSocket that was accepted.
        close_code: what a WebSocket ended with, whoever ended it.
    """

    receive_: Receive
    send_: Send
    request_id: str
    started: float
    is_last: bool = False
    status: int | None = None
    close_code: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0

    async def receive(self) -> Message:
        message = await self.receive_()
        self.bytes_in += _size(message)
        if message["type"] == "websocket.disconnect":
            self.close_code = self.close_code or message.get("code", NO_CODE)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            self._head(MutableHeaders(scope=message))
        elif message["type"] == "websocket.accept":
            self.status = SWITCHING_PROTOCOLS
            message.setdefault("headers", [])
            MutableHeaders(scope=message)["X-Request-ID"] = self.request_id
        elif message["type"] == "websocket.close":
            self.close_code = self.close_code or message.get("code", NO_CODE)
        self.bytes_out += _size(message)
        await self.send_(message)

    def _head(self, headers: MutableHeaders) -> None:
        """Add the headers of every answer."""
        headers["X-Request-ID"] = self.request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers.setdefault("Cache-Control", "no-store")
        if self.is_last:
            headers["Connection"] = "close"
        total = f"total;dur={(perf_counter() - self.started) * 1000:.1f}"
        stages = headers.get("Server-Timing")
        headers["Server-Timing"] = f"{stages}, {total}" if stages else total


def _size(message: Message) -> int:
    """Bytes of a body's part, or of a WebSocket's message."""
    text = message.get("text")
    return len(message.get("body") or message.get("bytes") or (text.encode() if text else b""))


def _internal() -> Problem:
    return Problem("internal", "The request failed inside the service.")


def request_id_of(scope: Scope) -> str:
    """The client's own id if it is harmless, else a new one."""
    offered = Headers(scope=scope).get("x-request-id", "")
    return offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex


def _route(scope: Scope) -> str | None:
    """The path's template, never what the client wrote."""
    return getattr(scope.get("route"), "path", None)
