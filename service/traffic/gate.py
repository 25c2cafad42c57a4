"""What is checked before a body is read: connections, shutdown, origin, key, places, quota."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem
from service.traffic.access import Access
from service.traffic.auth import Keyring
from service.traffic.caller_limiter import CallerLimiter
from service.traffic.connection_limiter import SURPLUS
from service.traffic.drain import Drain
from service.traffic.origins import Origins
from service.traffic.quotas import Caller, Quotas

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass
class Gate:
    """Checks every request to a route; the keyring may be replaced while requests run.

    Attributes:
        check_place: raises a Problem where no place is left for a request; there are places once
            the service has started.
    """

    keyring: Keyring
    quotas: Quotas
    drain: Drain
    callers: CallerLimiter = field(default_factory=CallerLimiter)
    origins: Origins = field(default_factory=Origins)
    check_place: Callable[[Scope], None] = lambda scope: None

    async def admit(self, access: Access, scope: Scope) -> Caller:
        """Check a request; returns who asks, and puts that into the request's state.

        Raises:
            Problem: too many are connected, the service is leaving, the page or the key may not do
                this, or the quota is used up or not known.
        """
        headers = Headers(scope=scope)
        refusal: Problem | None = scope["state"].get(SURPLUS)
        if refusal is not None and not access.is_probe:
            raise refusal
        if access.drained:
            self.drain.check()
        if not (access.is_probe or self.keyring):
            self.origins.check_host(headers)
        if scope["type"] == "websocket":
            self.origins.check_socket(headers)
        elif scope["method"] not in SAFE_METHODS:
            self.origins.check_post(headers)
        key = self.keyring.admit(access, headers)
        address = scope["client"][0] if scope.get("client") else None
        caller = scope["state"]["caller"] = Caller.of(key, address, self.quotas.usual)
        if access.metered:
            await self.quotas.admit(caller)
        return caller

    async def serve(
        self, access: Access, route: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Hand a request on to its route, with its caller in the state.

        Raises:
            Problem: the caller may not do this, or not now.
        """
        caller = await self.admit(access, scope)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(await self.quotas.told(caller))
            await send(message)

        try:
            with self.callers.slot(caller) if access.metered else nullcontext():
                if access.takes_place:
                    self.check_place(scope)
                await route(scope, receive, marked if access.metered else send)
        except Exception as error:
            await self.quotas.settle()  # a file that was decoded is paid for before its refusal
            if access.metered and isinstance(error, Problem):  # it is not sent through `marked`
                error.headers = {**(error.headers or {}), **await self.quotas.told(caller)}
            raise
