"""Which web pages may send requests from a browser that are more than reading.

A browser lets any page open a WebSocket and post a form to any address, also to this machine's own;
it tells which page it was in `Origin`, and in `Sec-Fetch-Site` how that relates to the address.
https://www.rfc-editor.org/rfc/rfc6455#section-10.2, https://www.w3.org/TR/fetch-metadata. Programs
that are no browsers send neither.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from service.problems import Problem
from service.untrusted import printable

ANY = "*"
LOCAL_NAMES = (".localhost", ".local", ".internal")  # which no name of the internet ends in
_OWN = ("same-origin", "none")  # a page of ours; somebody at the address bar


class Origins:
    """The pages of this service itself, and those of the origins that the operator allows.

    Args:
        allowed: origins, or `ANY`.
        is_local: the service listens to programs of this machine alone.
    """

    def __init__(self, allowed: Collection[str] = (), *, is_local: bool = False) -> None:
        self.allowed, self.is_local = frozenset(allowed), is_local
        self._names = {urlsplit(origin).hostname for origin in self.allowed - {ANY}}

    def check_host(self, headers: Headers) -> None:
        """Check the name that a service on this machine is called by.

        For a browser, a page of a name that leads to this machine (DNS rebinding) is a page of the
        service itself: it says no `Origin` and may read everything. Its name is in `Host`.

        Raises:
            Problem: it is a name of the internet that the operator has not allowed.
        """
        name = _name_of(headers.get("host", ""))
        if self.is_local and ANY not in self.allowed and not self._is_ours(name):
            raise Problem(
                "foreign-origin",
                f"This service answers by its address, not as {printable(name)!r}: "
                "VIOLA_CORS_ORIGINS names the origins of pages that it may be part of.",
            )

    def _is_ours(self, name: str) -> bool:
        return "." not in name or name in self._names or name.endswith(LOCAL_NAMES) or _is_ip(name)

    def check_socket(self, headers: Headers) -> None:
        """Check a WebSocket's handshake: own pages, allowed ones and programs may open one.

        Raises:
            Problem: it comes from a page of another origin.
        """
        if headers.get("sec-fetch-site") in _OWN:
            return
        for origin in headers.getlist("origin"):
            if not self._is_allowed(origin) and not _is_same(origin, headers.get("host", "")):
                raise _foreign(origin)

    def check_post(self, headers: Headers) -> None:
        """Check a request that may change or cost something.

        A browser that does not say `Sec-Fetch-Site` keeps its answer from other pages all the same.

        Raises:
            Problem: it comes from a page of another origin.
        """
        if headers.get("sec-fetch-site", "none") not in _OWN:
            origin = headers.get("origin", "null")
            if not self._is_allowed(origin):
                raise _foreign(origin)

    def _is_allowed(self, origin: str) -> bool:
        return ANY in self.allowed or origin in self.allowed


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """A `Host` header without its port, in lower case."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.strip("[]").rstrip(".").lower()


def _is_same(origin: str, host: str) -> bool:
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    return page.scheme in ("http", "https") and page.netloc.lower() == host.lower() != ""


def _foreign(origin: str) -> Problem:
    detail = f"A page of the origin {printable(origin)!r} may not do this here."
    return Problem("foreign-origin", detail)
