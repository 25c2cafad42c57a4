"""Which web pages may open a WebSocket: browsers let any page do it, and tell in `Origin` which.

https://www.rfc-editor.org/rfc/rfc6455#section-10.2. Programs that are no browsers send none.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from service.problems import Problem
from service.untrusted import printable

ANY = "*"


class Origins:
    """The pages of this service itself, and those of the origins that the operator allows."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self.allowed = frozenset(allowed)

    def check(self, headers: Headers) -> None:
        """Let in what no page sends, and what a page sends that may.

        Raises:
            Problem: the page belongs to another origin.
        """
        for origin in headers.getlist("origin"):
            if not self._may(origin, headers.get("host", "")):
                raise Problem(
                    "foreign-origin",
                    f"A page of {printable(origin)!r} may not open a stream here.",
                )

    def _may(self, origin: str, host: str) -> bool:
        if ANY in self.allowed or origin in self.allowed:
            return True
        try:
            page = urlsplit(origin)
        except ValueError:
            return False
        return page.scheme in ("http", "https") and page.netloc.lower() == host.lower() != ""
