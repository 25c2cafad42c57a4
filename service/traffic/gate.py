"""What is decided about a request before a byte of its body is read: crowd, drain, key, quota."""

from contextlib import nullcontext
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem
from service.traffic.access import Access
from service.traffic.auth import Keyring
from service.traffic.crowd import SURPLUS
from service.traffic.drain import Drain
from service.traffic.origins import Origins
from service.traffic.quotas import Caller, Quotas
from service.traffic.shares import Shares

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass
class Guards:
    """What the gate asks; the keyring may be replaced while requests run."""

    keyring: Keyring
    quotas: Quotas
    drain: Drain
    shares: Shares = field(default_factory=Shares)
    origins: Origins = field(default_factory=Origins)

    def admit(self, access: Access, scope: Scope) -> Caller:
        """Who asks; from the moment that this is known it stands in the request's state.

        Raises:
            Problem: too many are connected, the service is leaving, the page or the key may not do
                this, or the quota is used up.
        """
        headers = Headers(scope=scope)
        refusal: Problem | None = scope["state"].get(SURPLUS)
        if refusal is not None and not access.is_probe:
            raise refusal
        if access.drained:
            self.drain.check()
        if scope["type"] == "websocket":
            self.origins.check_socket(headers)
        elif scope["method"] not in SAFE_METHODS:
            self.origins.check_post(headers)
        key = self.keyring.admit(access, headers)
        address = scope["client"][0] if scope.get("client") else None
        caller = scope["state"]["caller"] = Caller.of(key, address, self.quotas.usual)
        if access.metered:
            self.quotas.check(caller)
        return caller


class Gate:
    """Lets requests in to routes."""

    def __init__(self, guards: Guards) -> None:
        self.guards = guards

    async def serve(
        self, access: Access, route: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Hand a request on to its route, with its caller in the state.

        Raises:
            Problem: the caller may not do this, or not now.
        """
        caller = self.guards.admit(access, scope)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.guards.quotas.headers(caller))
            await send(message)

        with self.guards.shares.slot(caller) if access.metered else nullcontext():
            await route(scope, receive, marked if access.metered else send)
