"""Which web pages may make a browser do something here that is not just reading.

A browser lets any page open a WebSocket and post a form to any address, also to this machine's own;
it tells which page it was in `Origin`, and in `Sec-Fetch-Site` how that relates to the address.
https://www.rfc-editor.org/rfc/rfc6455#section-10.2, https://www.w3.org/TR/fetch-metadata. Programs
that are no browsers send neither.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from service.problems import Problem
from service.untrusted import printable

ANY = "*"
_OWN = ("same-origin", "none")  # a page of ours; somebody at the address bar


class Origins:
    """The pages of this service itself, and those of the origins that the operator allows."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self.allowed = frozenset(allowed)

    def check_socket(self, headers: Headers) -> None:
        """Let in the handshake of our own pages, of allowed ones, and of what is no page.

        Raises:
            Problem: it comes from a page of another origin.
        """
        if headers.get("sec-fetch-site") in _OWN:
            return
        for origin in headers.getlist("origin"):
            if not self._is_allowed(origin) and not _is_same(origin, headers.get("host", "")):
                raise _foreign(origin)

    def check_post(self, headers: Headers) -> None:
        """Let in a request that may change something or cost something.

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


def _is_same(origin: str, host: str) -> bool:
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    return page.scheme in ("http", "https") and page.netloc.lower() == host.lower() != ""


def _foreign(origin: str) -> Problem:
    detail = f"A page of the origin {printable(origin)!r} may not do this here."
    return Problem("foreign-origin", detail)
