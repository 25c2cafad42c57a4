"""Requests that offer another protocol, which nobody has to take (RFC 9110, 7.8).

Java's HTTP client and `curl --http2` offer HTTP/2 (`Upgrade: h2c`) with their first request, bodies
included. httptools takes what follows such a head for the other protocol, so that the request had
no body; here it is read as if nothing had been offered.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import httptools

Headers = Iterable[tuple[bytes, bytes]]

_FRAMING = (b"content-length", b"transfer-encoding")


class Connection(Protocol):
    """What the parser tells what it finds."""

    headers: list[tuple[bytes, bytes]]

    def _should_upgrade(self) -> bool: ...


class DecliningParser:
    """An HttpRequestParser that goes on behind offers that its connection does not take.

    Of a request with a body `on_message_complete` is called twice, the first time behind its head.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parser = httptools.HttpRequestParser(connection)

    def feed_data(self, data: bytes) -> None:
        """Read on.

        Raises:
            httptools.HttpParserError: it is no HTTP.
            httptools.HttpParserUpgrade: the connection takes the offer.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self._connection._should_upgrade():
                raise
            if framing := framing_of(self._connection.headers):
                self._parser = _behind_head(self._connection, framing)
            if rest := data[offer.args[0] :]:
                self.feed_data(rest)

    def get_method(self) -> bytes:
        """The method of the request."""
        return self._parser.get_method()

    def get_http_version(self) -> str:
        """The HTTP version of the request."""
        return self._parser.get_http_version()

    def should_keep_alive(self) -> bool:
        """Whether the client means to send others."""
        return self._parser.should_keep_alive()

    def should_upgrade(self) -> bool:
        """Whether another protocol is offered."""
        return self._parser.should_upgrade()


def framing_of(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that say how long a body is; none where there is no body."""
    found = [(name, value) for name, value in headers if name in _FRAMING]
    return [] if all(value.strip() == b"0" for _, value in found) else found


def _behind_head(connection: Connection, framing: Headers) -> httptools.HttpRequestParser:
    """A parser for which a body with this framing comes next."""
    told = _Told(connection)
    parser = httptools.HttpRequestParser(told)
    lines = [b"%b: %b\r\n" % line for line in framing]
    parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *lines, b"\r\n"]))
    told.is_on = True
    return parser


class _Told:
    """Passes on what a parser finds, once it is on."""

    def __init__(self, connection: Any) -> None:
        self._connection, self.is_on = connection, False

    def on_message_begin(self) -> None:
        if self.is_on:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self.is_on:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_on:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.is_on:
            self._connection.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._connection.on_body(body)

    def on_message_complete(self) -> None:
        self._connection.on_message_complete()
