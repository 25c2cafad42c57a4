"""Who may call a route: declared at the route's function, and nowhere else.

    @router.post("/v1/audio/embeddings")
    @needs_key("embed", metered=True, takes_place=True)
    async def embed_audio(...): ...

`service/traffic/doors.py` refuses to make an application with a route that declares nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from starlette.routing import BaseRoute

Scope = Literal["embed", "classify", "metrics", "search", "teach", "jobs"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

T = TypeVar("T")

_ATTRIBUTE = "viola_access"


@dataclass(frozen=True)
class Access:
    """What a route asks of its callers.

    Attributes:
        needs_key: a key is asked for, where the operator has set keys.
        scopes: the key must have all of them.
        metered: it costs seconds of audio, so the caller's quota and share are checked first.
        drained: it is refused while the service shuts down.
        is_probe: it is answered on a connection beyond `max_connections` too.
        takes_place: it needs one of the places of requests, unless it streams; where none is left
            it is refused before its parameters are read, since refusals take time from the rest.
    """

    needs_key: bool = True
    scopes: frozenset[Scope] = frozenset()
    metered: bool = False
    drained: bool = False
    is_probe: bool = False
    takes_place: bool = False


def needs_key(
    *scopes: Scope, metered: bool = False, drained: bool = False, takes_place: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare that a route needs a key with these scopes; what is metered is also drained."""
    is_drained = drained or metered
    return _declared(Access(True, frozenset(scopes), metered, is_drained, takes_place=takes_place))


def open_to_all(endpoint: T) -> T:
    """Declare that anybody may ask."""
    return _declared(Access(needs_key=False))(endpoint)


def probe(endpoint: T) -> T:
    """Declare that anybody may ask, however many are connected."""
    return _declared(Access(needs_key=False, is_probe=True))(endpoint)


def declared_access(route: BaseRoute) -> Access | None:
    """What was declared at the route's function, or at the application mounted there."""
    endpoint = getattr(route, "endpoint", None) or getattr(route, "app", None)
    access: Access | None = getattr(endpoint, _ATTRIBUTE, None)
    return access


def _declared(access: Access) -> Callable[[T], T]:
    def declare(endpoint: T) -> T:
        setattr(endpoint, _ATTRIBUTE, access)
        return endpoint

    return declare
