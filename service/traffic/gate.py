"""What is decided about a request before a byte of its body is read: crowd, drain, key, quota."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import path_within, problem_response
from service.problems import Problem
from service.traffic import auth
from service.traffic.admission import check_crowd
from service.traffic.auth import Keyring
from service.traffic.drain import Drain
from service.traffic.quotas import Caller, Quotas
from service.traffic.shares import Shares

POLICY_VIOLATION = 1008  # of WebSockets; the client sees a handshake refused with 403

log = structlog.get_logger()


@dataclass
class Guards:
    """What the gate asks; the keyring may be replaced while requests run.

    The server says how many connections are open, once it runs.
    """

    keyring: Keyring
    quotas: Quotas
    drain: Drain
    max_connections: int
    shares: Shares = field(default_factory=Shares)
    n_connections: Callable[[], int] = lambda: 0

    def admit(self, path: str, audio: bool, headers: Headers, address: str | None) -> Caller:
        """Who asks; `audio`: for what costs audio seconds.

        Raises:
            Problem: too many are connected, the service is leaving, the key does not fit, or its
                quota is used up.
        """
        check_crowd(self.n_connections(), self.max_connections)
        if audio:
            self.drain.check()
        key = self.keyring.admit(path, headers)
        caller = Caller.of(key, address, self.quotas.usual)
        if audio:
            self.quotas.check(caller)
        return caller


class Gate:
    """Lets a request in, or answers for it."""

    def __init__(self, app: ASGIApp, guards: Guards) -> None:
        self.app = app
        self.guards = guards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the request with its caller in the state."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        path = path_within(scope)
        audio = takes_audio(path)
        address = scope["client"][0] if scope.get("client") else None
        state = scope.setdefault("state", {})
        with ExitStack() as held:
            try:
                caller = self.guards.admit(path, audio, Headers(scope=scope), address)
                if audio:
                    held.enter_context(self.guards.shares.slot(caller))
            except Problem as problem:
                return await self._refuse(problem, scope, receive, send)
            state["caller"] = caller

            async def marked(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._mark(MutableHeaders(scope=message), caller, audio)
                await send(message)

            await self.app(scope, receive, marked)

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            log.info("refused", problem=problem.kind.slug, detail=problem.detail)
            return await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        scope["state"]["problem"] = problem
        response = problem_response(problem, scope["state"]["request_id"], path_within(scope))
        if self.guards.drain.has_begun:
            response.headers["Connection"] = "close"
        await response(scope, receive, send)

    def _mark(self, headers: MutableHeaders, caller: Caller, audio: bool) -> None:
        if audio:
            headers.update(self.guards.quotas.headers(caller))
        if self.guards.drain.has_begun:  # so that the next request opens one to another instance
            headers["Connection"] = "close"


def takes_audio(path: str) -> bool:
    """Whether what is asked for costs audio seconds."""
    return bool(auth.needed(path) & {"embed", "classify"})
