"""Puts the gate's checks around every route, by the access that the route declares.

The checks belong to the route that the router has matched. There is no second table of paths, so no
spelling of a path reaches a route without them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from fastapi import FastAPI
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from service.errors import path_within
from service.parameters import LISTS
from service.problems import given_twice
from service.traffic.access import Access, declared_access
from service.traffic.gate import Gate

_PARAMETER = re.compile(r"{[^}]*}")  # in a path, whatever its name


class UndeclaredAccess(RuntimeError):
    """A route that does not say who may call it."""


class Door(BaseRoute):
    """A route that is checked by the gate first. It also answers HEAD wherever there is a GET."""

    def __init__(self, route: BaseRoute, access: Access, gate: Gate) -> None:
        self.route, self.access, self.gate = route, access, gate
        self.path: str = getattr(route, "path", "")
        self.path_format: str = getattr(route, "path_format", self.path)
        methods: set[str] = set(getattr(route, "methods", None) or ())
        self._answers_head = "GET" in methods and "HEAD" not in methods
        query = getattr(getattr(route, "dependant", None), "query_params", None)
        self._has_parameters = bool(query) or bool(methods - {"GET", "HEAD", "OPTIONS"})
        self._allowed = methods | ({"HEAD"} if self._answers_head else set())
        self.allowed_here = self._allowed
        """Methods that its path takes, through other doors as well; for `Allow`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as the route does, except for paths with control characters or line ends."""
        if not path_within(scope).isprintable():
            return Match.NONE, {}
        match, child_scope = self.route.matches(self._as_get(scope))
        return match, {**child_scope, "route": self.route}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the caller, then serve.

        Raises:
            Problem: the caller may not, or not now; or a parameter of the query is given twice.
            HTTPException: the route does not take this method.
        """
        await self.gate.serve(self.access, self._serve, scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._allowed and scope["type"] == "http" and scope["method"] not in self._allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.allowed_here))})
        if self._has_parameters or scope["type"] == "websocket":
            _refuse_what_is_given_twice(scope["query_string"])
        await self.route.handle(self._as_get(scope), receive, send)

    def _as_get(self, scope: Scope) -> Scope:
        """A HEAD request as the GET that the route knows; the server leaves out the body."""
        if self._answers_head and scope.get("method") == "HEAD":
            return dict(scope) | {"method": "GET"}
        return scope


def _refuse_what_is_given_twice(query: bytes) -> None:
    """Refuse a parameter that is given twice: one of its values would be dropped in silence."""
    if b"&" not in query:
        return
    seen = set[str]()
    for name, _ in QueryParams(query).multi_items():
        if name in seen and name not in LISTS:
            raise given_twice(name)
        seen.add(name)


def install(app: FastAPI, routes: Iterable[BaseRoute], gate: Gate) -> None:
    """Make these the routes of `app`, each behind its door.

    Raises:
        UndeclaredAccess: one of them does not declare who may call it.
    """
    app.router.default = _nothing_here
    by_path: dict[str, list[Door]] = defaultdict(list)
    for route in routes:
        door = _door(route, gate)
        app.router.routes.append(door)
        by_path[_PARAMETER.sub("{}", door.path)].append(door)
    for doors in by_path.values():
        together = set[str]().union(*(door.allowed_here for door in doors))
        for door in doors:
            door.allowed_here = together


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """404, for WebSockets too, whose handshakes Starlette would answer with 403."""
    raise HTTPException(404)


def check(app: FastAPI) -> None:
    """Check at the start, when no more routes are added.

    Raises:
        UndeclaredAccess: a route was added that has no door.
    """
    for route in app.router.routes:
        if not isinstance(route, Door):
            raise _undeclared(route)


def _door(route: BaseRoute, gate: Gate) -> Door:
    access = declared_access(route)
    if access is None:
        raise _undeclared(route)
    return Door(route, access, gate)


def _undeclared(route: BaseRoute) -> UndeclaredAccess:
    return UndeclaredAccess(
        f"{getattr(route, 'path', route)} does not declare who may call it; decorate its function "
        "with needs_key, open_to_all or probe, and add it with doors.install"
    )
