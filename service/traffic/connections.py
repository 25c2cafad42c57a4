"""HTTP connections, with limits in bytes and seconds on what is no complete request.

Uvicorn's HTTP/1.1 on llhttp (`httptools`), which answers several times as many requests a second as
its parser in Python: under overload most answers are refusals, and what they cost is missing from
the work that was accepted.
"""

import asyncio
import select
import uuid
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import problem_response
from service.problems import Problem
from service.traffic.connection_limiter import SURPLUS, ConnectionLimiter
from service.traffic.pace import ABORT
from service.traffic.sockets import handshake_problem
from service.traffic.stalls import StallWatch
from service.traffic.upgrades import DecliningParser, framing_of

MAX_HEAD_BYTES = 16 * 1024  # request line and headers
MAX_PIPELINED = 16  # requests that wait behind one: each takes kilobytes, and its head 18 bytes
LAST_CALL_S = 0.5  # for a request that is on its way when the service ends

_NO_HOST = Problem(
    "bad-request", "A request of HTTP/1.1 has one Host header (RFC 9112); send the service's name."
)
_NO_HTTP = Problem("bad-request", "What was sent is not an HTTP/1.1 request.")


class _Part(Enum):
    """Which part of a request comes next."""

    HEAD = auto()
    BODY = auto()
    NOTHING = auto()  # before the answer to what has come


class BoundedProtocol(StallWatch, HttpToolsProtocol):
    """A connection that is closed unless it sends whole requests in time.

    A head has to come whole in `head_timeout_s`. A connection whose client has not read the last
    piece of an answer in `write_timeout_s` is ended as well: `AnswerPace` limits the answer as a
    whole, but closing a connection waits for its last piece.

    Between requests uvicorn's own keep-alive timeout counts, but only until the first byte of the
    next one: a client that sends a byte now and then (slowloris) could otherwise stay for ever, and
    so could one that goes on sending a body that was refused unread. A head of more than 16 KiB and
    what is no HTTP at all are answered with a problem document, once the requests before it on the
    same connection have their answers. Where there are too many connections only probes are
    answered.

    Fields behind a body (trailers) are dropped: they come after it was decided who may send the
    request. They may be as long as a head; so may what stands between two chunks of a body.

    An invalid handshake of a WebSocket, or one with a body, is answered with a problem document. A
    handshake behind a request that has no answer yet is not read: the connection ends after that
    answer. Other protocols that a request offers are not taken.

    Of requests that are sent without waiting for answers `MAX_PIPELINED` are kept; the last of them
    is the last of its connection, and the client sends again what has no answer (RFC 9112, 9.3.2).
    """

    head_timeout_s: ClassVar[float]
    write_timeout_s: ClassVar[float]
    limiter: ClassVar["ConnectionLimiter[BoundedProtocol]"]
    """Shared by all connections of a service."""

    _timer: asyncio.TimerHandle | None = None
    _next = _Part.HEAD
    _found_bytes = 0  # of the head, or of trailers, in lines that the parser has found whole
    _fed_bytes = 0  # of the same, in data that held nothing else: counts the unfinished line too
    _is_body = False  # whether the data received last held some of a body
    _n_whole = 0  # requests that have come whole
    _fault = _NO_HTTP  # what is wrong with a request that cannot be read
    _is_last = False  # whether the next request is the last one that is answered
    _is_over = False  # whether all that still comes is thrown away
    _body_follows = False  # whether a body comes although the parser stopped at an offered protocol

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.parser = DecliningParser(self)  # type: ignore[assignment]

    def connection_made(self, transport: Any) -> None:
        """Begin to watch, and let go of an older connection if there are too many."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self.watch_stalls(transport, self.write_timeout_s)
        leaver = self.limiter.enter(self, len(self.connections))
        if leaver is not None:
            leaver._make_room()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on, but for what nobody will look at."""
        if self._is_over:
            return
        part, n_whole, self._is_body = self._next, self._n_whole, False
        super().data_received(data)
        # All of it belongs to one head or trailer: the parser keeps a line until it is whole
        if part is self._next and n_whole == self._n_whole and not self._is_body:
            self._fed_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave room for others."""
        self.limiter.leave(self)
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    # What the parser finds

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._next, self._found_bytes, self._fed_bytes = _Part.HEAD, 0, 0
        extensions: dict[str, Any] = {ABORT: self.transport.abort}
        self.scope["extensions"] = extensions
        if refusal := self.limiter.refusal(self, len(self.connections)):
            self.scope["state"][SURPLUS] = refusal

    def on_url(self, url: bytes) -> None:
        """Its target, or a part of it."""
        self._found_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers, or of the trailers."""
        self._found_bytes += len(name) + len(value) + len(b": \r\n")
        if self._next is _Part.HEAD:
            super().on_header(name, value)
        elif self._found_bytes > MAX_HEAD_BYTES:
            raise ValueError("the trailers are too long")  # comes back as `send_400_response`

    def on_headers_complete(self) -> None:
        """Its head has come."""
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head is too long")  # likewise
        if self.parser.get_http_version() == "1.1" and _n_hosts(self.headers) != 1:
            self._next, self._fault = _Part.HEAD, _NO_HOST
            raise ValueError("not one Host")  # likewise
        if len(self.pipeline) >= MAX_PIPELINED:
            self._next = _Part.HEAD
            raise ValueError("too many requests wait")  # likewise
        self._next, self._found_bytes, self._fed_bytes = _Part.BODY, 0, 0
        is_declined = self.parser.should_upgrade() and not self._should_upgrade()
        self._body_follows = is_declined and bool(framing_of(self.headers))
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is before:  # a WebSocket's handshake
            return
        self.cycle.transport = _Answers(self.transport, self._end)  # type: ignore[assignment]
        if self._is_last:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._is_body, self._found_bytes, self._fed_bytes = True, 0, 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it has come."""
        if self._body_follows:
            self._body_follows = False
            return
        self._next = _Part.NOTHING
        self._n_whole += 1
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Pass a handshake on, or refuse it."""
        self._next = _Part.NOTHING  # a protocol of its own from here on
        if self._is_answering():  # it would be answered before the requests that it is behind
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        head = [b"%b %b HTTP/1.1\r\n" % (self.scope["method"].encode(), self.url)]
        head += [b"%b: %b\r\n" % field for field in self.headers]
        refusal = self.scope["state"].get(SURPLUS) or handshake_problem(b"".join(head))
        if refusal is not None:
            self.transport.write(_http_answer(refusal))
            self.transport.close()
        else:
            self.stall.stop()  # the other protocol has its own
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or too long a head, and hang up."""
        if self.transport.is_closing():
            return
        if self._is_answering() and self._next is _Part.HEAD:  # what comes after a request
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if not self._is_answering() or not self.cycle.response_started:
            is_long = self._head_bytes > MAX_HEAD_BYTES
            problem = _head_too_large(self._head_bytes) if is_long else self._fault
            self.transport.write(_http_answer(problem))
        self.transport.close()

    # The end

    def _end(self) -> None:
        """Close behind an answer, once the client has sent what it is sending, or tires of it.

        To close before would reset the connection, and the client might not see the answer.
        """
        if self._next is not _Part.BODY or self.transport.is_closing():
            self.transport.close()
            return
        self._is_over = True
        self.cycle.body = bytearray()  # that nobody will read
        self.flow.resume_reading()
        self.transport.write_eof()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless its next request has come.

        A loop that is busy finds that the time is up before it reads what came in time.
        """
        if not _has_come(self.transport):
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """The service ends: close, once a request that is on its way has its answer.

        To close before it is read would reset the connection: the client could not know whether
        anything was done.
        """
        if self._is_answering() or not self._is_sent_something():
            super().shutdown()
        else:
            self._is_last = True
            self.loop.call_later(LAST_CALL_S, self._close_if_idle)

    def _is_sent_something(self) -> bool:
        """Whether a request is on its way, as far as one can tell."""
        if self._next is _Part.NOTHING:
            return _has_come(self.transport)
        is_new = self._n_whole == 0 and self._next is _Part.HEAD and self._head_bytes == 0
        return not is_new or self.loop.time() < self._since + LAST_CALL_S

    def _close_if_idle(self) -> None:
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.close()

    # What the application does

    def on_response_complete(self) -> None:
        """Its answer has gone: what comes is the next one."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch()

    @property
    def _head_bytes(self) -> int:
        """Bytes of the head that comes, or of the trailers, as far as they are known."""
        return max(self._found_bytes, self._fed_bytes)

    def _is_answering(self) -> bool:
        """Whether a request that has come is still without its whole answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> None:
        """Leave for a newer connection, where too many are open."""
        refusal = self.limiter.refusal(self, len(self.connections))
        self.limiter.leave(self)
        if self.cycle is None and refusal is not None:
            self.transport.write(_http_answer(refusal))
        self.transport.close()

    # The clock

    def _only_talks(self) -> bool:
        """Whether the client sends a head, or the body of a request that has its answer."""
        return self._next is not _Part.NOTHING and not self._is_answering()

    def _watch(self) -> None:
        """Start the timer while the client sends what nobody works on yet; stop it otherwise."""
        if not self._only_talks():
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout_s, self._hang_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._timer = None
        if self._only_talks() and not self.transport.is_closing():
            self.transport.close()


def bounded_protocol(
    head_timeout_s: float, write_timeout_s: float = 60.0, *, max_connections: int
) -> type[BoundedProtocol]:
    """The protocol of one service, whose connections are counted together."""
    bounds = {
        "head_timeout_s": head_timeout_s,
        "write_timeout_s": write_timeout_s,
        "limiter": ConnectionLimiter[BoundedProtocol](max_connections),
    }
    return type(BoundedProtocol.__name__, (BoundedProtocol,), bounds)


class _Answers:
    """The transport that answers are written to; to close it is to call `end`."""

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, end


def _has_come(transport: asyncio.BaseTransport) -> bool:
    """Whether the system holds something of the client's that the loop has not read yet."""
    held = transport.get_extra_info("socket")
    if held is None or held.fileno() < 0:  # it has been closed
        return False
    poll = select.poll()
    poll.register(held.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _n_hosts(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(name == b"host" for name, _ in headers)


def _head_too_large(n_bytes: int) -> Problem:
    return Problem(
        "head-too-large",
        f"The head, or what stands behind the body, has {n_bytes} bytes or more; at most "
        f"{MAX_HEAD_BYTES} are read.",
        limit=MAX_HEAD_BYTES,
        observed=n_bytes,
        unit="bytes",
    )


def _http_answer(problem: Problem) -> bytes:
    """A problem as a whole HTTP answer, for what never became a request of the application."""
    response = problem_response(problem, uuid.uuid4().hex)
    fields = [*response.raw_headers, (b"connection", b"close")]
    lines = [b"%b: %b\r\n" % field for field in fields]
    return b"".join([STATUS_LINE[problem.status_code], *lines, b"\r\n", response.body])
