"""What both clients know of the service: its address, the key, how long to wait."""

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.request import getproxies, proxy_bypass

import h11
import httpx

from viola.client.calls import Call, as_json
from viola.client.errors import Failure, Unreachable

DEFAULT_ADDRESS = "http://127.0.0.1:8000"

# Errors of a connection that broke off, because the service restarts or refused the request before
# it had read all of it. Calls are then sent again, and computed twice at the worst, unless that
# matters to them (`Call.repeats`).
BROKEN_OFF = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.WriteTimeout,
    httpx.CloseError,
    httpx.RemoteProtocolError,
)


@dataclass(frozen=True)
class Connection:
    """The address of the service, the key, and how long to wait for it.

    Attributes:
        address: `http://host:port`, with the prefix of a proxy if there is one.
        key: the API key, where keys are on.
        timeout_s: how long nothing may come while an answer is waited for.
    """

    address: str = DEFAULT_ADDRESS
    key: str | None = None
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Take the address as httpx writes it, and the key without the line break of its file.

        Raises:
            ValueError: the address is not that of a service, the key holds characters that no key
                has, or there is no time to wait. Neither the key nor a password is shown.
            TypeError: one of the former is not a text.
        """
        for name, given in (("address", self.address), ("key", self.key)):
            if not (isinstance(given, str) or (name == "key" and given is None)):
                raise TypeError(f"{name}: expected a text, not {type(given).__name__}")
        object.__setattr__(self, "address", _address(self.address))
        if not isinstance(self.timeout_s, int | float) or not self.timeout_s > 0:
            raise ValueError(f"timeout_s = {self.timeout_s!r}; expected seconds, more than 0")
        if self.key is None:
            return
        key = self.key.strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("key: expected letters, digits and `_-`, as `viola key` printed it")
        if key and httpx.URL(self.address).userinfo:
            raise ValueError("address: it holds a user, and there is a key: only one can be sent")
        object.__setattr__(self, "key", key)

    def options(self) -> dict[str, Any]:
        """The arguments of an httpx client, which opens as many connections as there are calls."""
        return {
            "base_url": self.address,
            "headers": self.headers,
            "timeout": httpx.Timeout(self.timeout_s, connect=10.0, pool=None),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=64),
        }

    @property
    def shown(self) -> str:
        """The address without a password."""
        return str(httpx.URL(self.address).copy_with(userinfo=b""))

    def failed(self, error: httpx.RequestError) -> Failure:
        """The failure of an attempt that got no answer."""
        never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        remedy = "; does the service run there, and is the address right?" if never_sent else ""
        reason = error or type(error).__name__
        told = Unreachable(f"no answer from {self.shown}: {reason}{remedy}{self.proxied()}")
        return Failure(told, isinstance(error, BROKEN_OFF), is_undone=never_sent)

    def proxied(self) -> str:
        """Through which proxy of the environment requests go, if they do."""
        url, proxies = httpx.URL(self.address), getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(url.host):
            return ""
        shown = proxy.rpartition("@")[2]  # without a password
        return f" It is asked through the proxy {shown}; NO_PROXY={url.host} asks without it."

    @property
    def live_address(self) -> str:
        """The address of live streams."""
        address = self.address.rstrip("/")
        return "ws" + address.removeprefix("http") + "/v1/audio/stream"

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of every request, and of a live stream's handshake."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def _address(given: str) -> str:
    """The address of a service, its scheme and host in lower case.

    Raises:
        ValueError: it is none.
    """
    try:
        url = httpx.URL(given.strip())
        if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65535:
            raise ValueError
        if url.query or url.fragment:
            raise ValueError
    except (httpx.InvalidURL, ValueError):
        shown = "" if "@" in given else f" {given!r}"
        raise ValueError(
            f"address{shown}: expected http://host:port or https://host, and no more behind it "
            "than the prefix of a proxy"
        ) from None
    return str(url)


@contextmanager
def opened(call: Call[Any]) -> Iterator[BinaryIO | None]:
    """The sound of a call as an open file, if it is sent as a file of a form; else None.

    Raises:
        OSError: the sound is not as long, while it is sent, as was announced.
    """
    try:
        if call.body is None or not call.as_form:
            yield None
            return
        with call.body.opened() as file:
            yield file
    except h11.LocalProtocolError as error:
        if call.body is None:
            raise
        raise call.body.changed() from error


def request_of(
    call: Call[Any], file: BinaryIO | None, pieces: Iterable[bytes] | AsyncIterable[bytes]
) -> dict[str, Any]:
    """The arguments of httpx for a call.

    Args:
        call: the call.
        file: the sound for a form, as `opened` gives it.
        pieces: the sound, where it is the body itself.
    """
    arguments = {"method": call.method, "url": call.path, "params": call.query}
    body: dict[str, Any] = {}
    if call.document is not None:
        body = {"content": as_json(call.document)}
    elif call.body is not None and file is not None:
        body = {"files": {"file": (call.body.name or "sound", file)}, "data": call.fields}
    elif call.body is not None:
        body = {"content": pieces}
    return arguments | {"headers": call.headers} | body
