"""WebSockets, with limits on what their clients leave unfinished, and on what they do not read."""

from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, TypeVar

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from service.problems import Problem
from service.traffic.stalls import StallWatch
from service.untrusted import printable

OVERHEAD_BYTES = 300  # that a message or a fragment of one takes beside its content
CLOSE_OVERLOADED = 4503
VERSION = "13"  # of the protocol; the refusal of another version has to name it

S = TypeVar("S")


class Unfinished(Generic[S]):
    """The bytes of all sockets' messages that have not come whole, or that nobody has taken yet.

    If they are too many, the socket whose message began first is closed: an honest client sends a
    whole message within moments. Used on the event loop alone.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.n_bytes = most_bytes, 0
        self._held: dict[S, int] = {}  # in the order in which their messages began

    def hold(self, socket: S, n_bytes: int) -> S | None:
        """Note what a socket holds now; returns one that has to be closed for it."""
        self.n_bytes += n_bytes - self._held.get(socket, 0)
        if n_bytes:
            self._held[socket] = n_bytes
        else:
            self._held.pop(socket, None)
        return next(iter(self._held)) if self.n_bytes > self.most_bytes else None

    def begin(self, socket: S) -> None:
        """Another message of the socket begins."""
        if (n_bytes := self._held.pop(socket, 0)) > 0:
            self._held[socket] = n_bytes


class BoundedSocket(StallWatch, WebSocketsSansIOProtocol):
    """A connection whose client has to read, and to end what it begins.

    It is closed where nothing was read of it for `write_timeout_s`, and takes no more pings while
    answers to others have not been read.
    """

    write_timeout_s: ClassVar[float]
    unfinished: ClassVar["Unfinished[BoundedSocket]"]
    """Shared by all sockets of a service."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._fragments = 0  # bytes of the message that is arriving
        self._queued: deque[int] = deque()  # bytes of each message that waits for the application
        self._n_queued = 0  # their sum
        self._pings_wait = False

    def connection_made(self, transport: Any) -> None:
        """Begin to watch whether the client reads."""
        super().connection_made(transport)
        self.watch_stalls(transport, self.write_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing of it is held any more."""
        self.stall.stop()
        super().connection_lost(exc)
        self.unfinished.hold(self, 0)

    def data_received(self, data: bytes) -> None:
        """Read on, and note what is held now."""
        super().data_received(data)
        self._note()

    async def receive(self) -> Any:
        """The application's next message."""
        message = await super().receive()
        if message["type"] == "websocket.receive" and self._queued:
            self._n_queued -= self._queued.popleft()
            self.unfinished.begin(self)
            self._note()
        return message

    async def send(self, message: Any) -> None:
        """Send the application's message.

        Raises:
            ClientDisconnected: the socket was closed for what the client did.
        """
        if message["type"] == "websocket.send" and self.handshake_complete and self.close_sent:
            raise ClientDisconnected  # else uvicorn takes it for a fault of the application
        await super().send(message)
        ended = not message.get("more_body", False)
        if message["type"] == "websocket.http.response.body" and ended:
            self.handshake_complete = True  # else uvicorn logs an error: it had no answer

    # What comes

    def handle_text(self, event: Frame) -> None:
        """The first fragment of a text."""
        self._fragments = _size(event)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """The first fragment of bytes."""
        self._fragments = _size(event)
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Another fragment."""
        self._fragments += _size(event)
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """A message has come whole."""
        if self.curr_msg_data_type == "text" and not _is_utf8(self.frames) and not self.close_sent:
            self.conn.send_close(CloseCode.INVALID_DATA, "a text that is not UTF-8")
            self.handle_parser_exception()  # not the library's way: it logs an error
            self.frames, self._fragments = [], 0
            return
        n_before = self.queue.qsize()
        super().send_receive_event_to_app()
        if self.queue.qsize() > n_before:
            self._queued.append(self._fragments)
            self._n_queued += self._fragments
        self._fragments = 0

    def handle_ping(self) -> None:
        """Answer, and read no more until that has been read."""
        super().handle_ping()
        if not self.writable.is_set():
            self._pings_wait = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read: so do we again."""
        super().resume_writing()
        if self._pings_wait and not self.read_paused:
            self.transport.resume_reading()
        self._pings_wait = False

    def _note(self) -> None:
        """Report the bytes that this socket holds, and close those that have to make room."""
        if self.transport.is_closing():
            return
        n_bytes = len(self.conn.reader.buffer) + self._fragments + self._n_queued
        leaver = self.unfinished.hold(self, n_bytes)
        while leaver is not None:
            leaver._give_up()
            leaver = self.unfinished.hold(leaver, 0)

    def _give_up(self) -> None:
        """Close, and forget what has come."""
        if self.handshake_complete and not self.close_sent:
            self.conn.send_close(CLOSE_OVERLOADED, "overloaded")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CLOSE_OVERLOADED})
        self.transport.close()
        self.conn.reader.buffer.clear()
        self.frames, self._fragments = [], 0


def bounded_socket(
    write_timeout_s: float, max_unfinished_bytes: int = 32 << 20
) -> type[BoundedSocket]:
    """The protocol of one service, whose sockets share a limit on what has not come whole."""
    bounds = {
        "write_timeout_s": write_timeout_s,
        "unfinished": Unfinished[BoundedSocket](max_unfinished_bytes),
    }
    return type(BoundedSocket.__name__, (BoundedSocket,), bounds)


def handshake_problem(head: bytes) -> Problem | None:
    """What is wrong with a handshake: its request line and headers, without the empty line.

    The library answers some in words of its own and others not at all, and then waits for ever.
    """
    trial = ServerProtocol()
    trial.receive_data(head + b"\r\n")
    for event in trial.events_received():
        if isinstance(event, Request):
            trial.accept(event)
    if (error := trial.handshake_exc) is None:
        return None
    reason = printable(str(error.__cause__ or error).rstrip("."))
    return Problem(
        "bad-request",
        f"This is no handshake of a WebSocket: {reason}.",
        headers={"Sec-WebSocket-Version": VERSION},
    )


def _is_utf8(fragments: Iterable[bytes]) -> bool:
    try:
        b"".join(fragments).decode()
    except UnicodeDecodeError:
        return False
    return True


def _size(event: Frame) -> int:
    return len(event.data) + OVERHEAD_BYTES
