"""What else comes on a connection while a request on it is answered, and how many there may be."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from service.traffic.connection_limiter import ConnectionLimiter
from service.traffic.connections import MAX_HEAD_BYTES, MAX_PIPELINED, bounded_protocol
from service.traffic.sockets import Unfinished, bounded_socket
from tests.service.conftest import Serve, encoded

# Decoding it takes longer than a head may
SLOW = encoded(np.zeros(200 * 48_000, np.int16), rate=48_000, kind="FLAC")
POST = (
    f"POST /v1/audio/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SLOW)}\r\n\r\n"
).encode() + SLOW
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    address = (client.base_url.host, client.base_url.port or 0)
    with socket.create_connection(address, timeout=20) as line:
        yield line


def all_of(line: socket.socket) -> bytes:
    """Until the service hangs up."""
    received = b""
    while part := line.recv(65_536):
        received += part
    return received


@pytest.fixture(scope="module")
def client(serve: Serve) -> Iterator[httpx.Client]:
    with serve(head_timeout_s=0.1, max_body_bytes=len(SLOW)) as client:
        yield client


@pytest.fixture(scope="module")
def patient(serve: Serve) -> Iterator[httpx.Client]:
    with serve() as client:
        yield client


@pytest.mark.parametrize("head", [b"GET /livez HT", GET[:-1], b"G"])
def test_half_a_head_behind_a_request_does_not_cost_its_answer(
    client: httpx.Client, head: bytes
) -> None:
    with connected(client) as line:
        line.sendall(POST + head)
        answers = all_of(line)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1 ") == 1


def test_half_a_head_may_be_finished_once_the_request_before_it_is_answered(
    client: httpx.Client,
) -> None:
    with connected(client) as line:
        line.sendall(POST + GET[:10])
        assert line.recv(12) == b"HTTP/1.1 200"
        line.sendall(GET[10:])
        assert b"HTTP/1.1 200 OK" in all_of(line)


@pytest.mark.parametrize(
    "rubbish", [b"\x00\x01 rubbish\r\n\r\n", b"GET /livez HTTP/1.1\r\n" + b"X: 1\r\n" * 4000]
)
def test_rubbish_behind_a_request_does_not_cost_its_answer(
    client: httpx.Client, rubbish: bytes
) -> None:
    assert len(rubbish) < 20 or len(rubbish) > MAX_HEAD_BYTES
    with connected(client) as line:
        line.sendall(POST)
        time.sleep(0.05)
        line.sendall(rubbish)
        answers = all_of(line)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1 ") == 1


def test_requests_behind_a_request_are_answered_in_turn(client: httpx.Client) -> None:
    with connected(client) as line:
        line.sendall(POST + GET * 3)
        answers = all_of(line)
    assert answers.count(b"HTTP/1.1 200 ") == 4


def test_of_requests_that_wait_for_none_some_are_answered_and_the_rest_is_not_kept(
    client: httpx.Client,
) -> None:
    with connected(client) as line:
        line.sendall(POST + GET * 5000)
        answers = all_of(line)
    assert answers.count(b"HTTP/1.1 200 ") == 1 + MAX_PIPELINED
    assert answers.count(b"HTTP/1.1 ") == 1 + MAX_PIPELINED
    assert b"connection: close" in answers[answers.rindex(b"HTTP/1.1 ") :].lower()


CHUNKED = (
    b"POST /v1/audio/embeddings HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SHORT = encoded(np.zeros(8000, np.int16), rate=16_000, kind="FLAC")


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
def test_fields_behind_a_body_are_no_headers(client: httpx.Client, offer: bytes) -> None:
    head = CHUNKED.replace(b"Connection: close\r\n", offer) if offer else CHUNKED
    trailers = b"Content-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    with connected(client) as line:
        line.sendall(head + b"%x\r\n%b\r\n0\r\n%b" % (len(SHORT), SHORT, trailers))
        assert line.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("trailers", [b"X: 1\r\n", b"X" * 1000])
@pytest.mark.parametrize("path", [b"/v1/audio/embeddings", b"/nothing"])
def test_what_stands_behind_a_body_is_no_longer_than_a_head(
    patient: httpx.Client, path: bytes, trailers: bytes
) -> None:
    head = CHUNKED.replace(b"/v1/audio/embeddings", path).replace(b"Connection: close\r\n", b"")
    some = trailers * (MAX_HEAD_BYTES // len(trailers) + 300 // len(trailers) + 1)
    with connected(patient) as line:
        line.sendall(head + b"5\r\nhello\r\n0\r\n")
        for first in range(0, len(some), 1000):
            time.sleep(0.004)
            line.sendall(some[first : first + 1000])
        answers = all_of(line)
    assert b"HTTP/1.1 431 " in answers


def test_lines_between_chunks_may_come_alone(patient: httpx.Client) -> None:
    size = b"1;" + b"x" * 5000 + b"\r\n"
    with connected(patient) as line:
        line.sendall(CHUNKED)
        for first in range(10):
            time.sleep(0.005)
            line.sendall(size)
            time.sleep(0.005)
            line.sendall(SHORT[first : first + 1] + b"\r\n")
        rest = SHORT[10:]
        line.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        assert all_of(line).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("n_bytes", [MAX_HEAD_BYTES - 200, MAX_HEAD_BYTES + 200])
def test_a_head_is_as_long_as_it_is_however_it_comes(patient: httpx.Client, n_bytes: int) -> None:
    field = b"X: " + b"a" * 95 + b"\r\n"
    head = GET[:-2] + field * (n_bytes // len(field)) + b"Connection: close\r\n\r\n"
    with connected(patient) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, len(head), 1400):  # as on a network
            line.sendall(head[first : first + 1400])
            time.sleep(0.01)
        status = line.recv(12)
    assert status == (b"HTTP/1.1 200" if n_bytes < MAX_HEAD_BYTES else b"HTTP/1.1 431")


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


HELLO = b"GET /v1/audio/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param(KEY + b"Sec-WebSocket-Version: 8\r\n", b"Version header: 8", id="version"),
        pytest.param(KEY, b"missing Sec-WebSocket-Version", id="no version"),
        pytest.param(VERSION, b"missing Sec-WebSocket-Key", id="no key"),
        pytest.param(KEY + VERSION + b"Content-Length: 5\r\n", b"request body", id="a body"),
        pytest.param(KEY + VERSION + b"a: b\r\n" * 200, b"128 headers", id="many headers"),
    ],
)
def test_a_handshake_that_is_none_is_answered_with_a_problem(
    client: httpx.Client, fields: bytes, reason: bytes
) -> None:
    with connected(client) as line:
        line.sendall(HELLO + fields + b"\r\n")
        answer = all_of(line)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b"sec-websocket-version: 13\r\n" in answer.lower()
    assert reason in answer


def test_a_handshake_behind_a_request_is_not_answered_before_it(client: httpx.Client) -> None:
    with connected(client) as line:
        line.sendall(POST + HELLO + KEY + VERSION + b"\r\n")
        answers = all_of(line)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1 ") == 1


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("n_pieces", [1, 2, 50])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_request_that_offers_another_protocol_keeps_its_body(
    client: httpx.Client, is_chunked: bool, n_pieces: int
) -> None:
    body = encoded(np.zeros(1600, np.int16))
    head = b"POST /v1/audio/embeddings HTTP/1.1\r\nHost: x\r\n" + OFFER
    if is_chunked:
        coded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        request = head + b"Transfer-Encoding: chunked\r\n\r\n" + coded
    else:
        request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    offering = GET[:-2] + OFFER + b"\r\n"
    last = GET[:-2] + b"Connection: close\r\n\r\n"
    sent = request + offering + request + last
    step = -(-len(sent) // n_pieces)
    with connected(client) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, len(sent), step):
            line.sendall(sent[first : first + step])
            time.sleep(0.001)
        answers = all_of(line)
    assert answers.count(b"HTTP/1.1 200 ") == answers.count(b"HTTP/1.1 ") == 4
    assert answers.count(b'"duration_s":0.1') == 2


def test_a_request_that_came_in_time_is_answered_by_a_loop_that_was_busy() -> None:
    async def converse(client: socket.socket, ours: socket.socket) -> list[bytes]:
        config = uvicorn.Config(
            _nothing,
            timeout_keep_alive=0.2,  # type: ignore[arg-type]
            log_config=None,
        )
        config.load()
        protocol = bounded_protocol(1.0, max_connections=1)
        loop, answers = asyncio.get_running_loop(), []
        client.setblocking(False)

        def connection() -> Any:
            return protocol(config, ServerState(), {})

        def ask_while_it_is_busy() -> None:
            loop.remove_reader(other)
            client.send(GET)
            time.sleep(0.4)

        await loop.connect_accepted_socket(connection, ours)
        await loop.sock_sendall(client, GET)
        answers.append(await loop.sock_recv(client, 1000))
        one, other = socket.socketpair()
        with one, other:
            loop.add_reader(other, ask_while_it_is_busy)
            one.send(b"!")
            answers.append(await asyncio.wait_for(loop.sock_recv(client, 1000), 5))
        await asyncio.sleep(0.4)
        answers.append(await loop.sock_recv(client, 1000))
        return answers

    client, ours = socket.socketpair()
    with client, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        one, other, end = runner.run(converse(client, ours))
    assert one.startswith(b"HTTP/1.1 204 ")
    assert other.startswith(b"HTTP/1.1 204 ")
    assert end == b""  # and then, idle, it is closed


def test_the_time_of_a_connection_that_was_cut_ends_without_an_error() -> None:
    async def converse(client: socket.socket, ours: socket.socket) -> list[dict[str, Any]]:
        config = uvicorn.Config(
            _nothing,
            timeout_keep_alive=0.2,  # type: ignore[arg-type]
            log_config=None,
        )
        config.load()
        errors: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        protocol = bounded_protocol(1.0, max_connections=1)(config, ServerState(), {})
        client.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
        await loop.sock_sendall(client, GET)
        assert await loop.sock_recv(client, 1000)
        transport.abort()
        await asyncio.sleep(0.01)
        protocol.timeout_keep_alive_handler()  # as by a timer that nobody has stopped
        protocol.shutdown()
        await asyncio.sleep(0.4)
        return errors

    client, ours = socket.socketpair()
    with client, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(converse(client, ours)) == []


async def _refusal(scope: Any, receive: Any, send: Any) -> None:
    closing = [(b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": closing})
    await send({"type": "http.response.body"})


def test_what_was_sent_of_a_refused_body_is_not_kept_while_the_rest_comes() -> None:
    async def converse(client: socket.socket, ours: socket.socket) -> tuple[bytes, bytes]:
        config = uvicorn.Config(_refusal, log_config=None)
        config.load()
        protocol = bounded_protocol(1.0, max_connections=1)(config, ServerState(), {})
        loop = asyncio.get_running_loop()
        client.setblocking(False)
        await loop.connect_accepted_socket(lambda: protocol, ours)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        await loop.sock_sendall(client, head + bytes(50_000))
        answer = await loop.sock_recv(client, 1000)
        await loop.sock_sendall(client, bytes(50_000))
        await asyncio.sleep(0.05)
        kept = protocol.cycle.body
        client.close()
        await asyncio.sleep(0.05)
        return answer, kept

    client, ours = socket.socketpair()
    with client, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer, kept = runner.run(converse(client, ours))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert kept == b""


def test_the_message_that_takes_longest_makes_room() -> None:
    unfinished: Unfinished[str] = Unfinished(10)
    assert [unfinished.hold(name, 3) for name in "abc"] == [None] * 3
    unfinished.begin("a")
    assert unfinished.hold("d", 3) == "b"
    assert unfinished.hold("b", 0) is None
    assert unfinished.hold("a", 5) == "c"
    assert unfinished.n_bytes == 11


def test_who_is_there_stays_and_the_newest_of_too_many_makes_the_oldest_of_them_go() -> None:
    limiter: ConnectionLimiter[str] = ConnectionLimiter(2, reserve=2)
    assert [limiter.enter(name, n) for n, name in enumerate("abcd", 1)] == [None] * 4
    assert limiter.enter("e", 5) == "c"
    limiter.leave("c")
    assert [limiter.refusal(name, 4) is None for name in "abde"] == [True, True, False, False]
    assert limiter.refusal("d", 3) is None  # one of the first two has gone: there is room
    assert limiter.refusal("e", 3) is not None
    assert limiter.refusal("d", 9) is None  # and stays


class Line(asyncio.Transport):
    """A transport that remembers whether it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cut = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def abort(self) -> None:
        self.is_cut = True


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_socket_whose_client_takes_nothing_is_cut(is_taken: bool) -> None:
    async def stand_still() -> bool:
        config = uvicorn.Config("none", log_config=None, interface="asgi3")
        config.loaded, config.loaded_app = True, None
        socket_ = bounded_socket(0.05)(config, ServerState(), {})
        line = Line()
        socket_.connection_made(line)
        socket_.pause_writing()
        if is_taken:
            socket_.resume_writing()
        await asyncio.sleep(0.2)
        return line.is_cut

    assert asyncio.run(stand_still()) is not is_taken


@pytest.mark.parametrize("hosts", ["", "Host: a\r\nhost: b\r\n"])
def test_a_request_has_one_host(client: httpx.Client, hosts: str) -> None:
    with connected(client) as line:
        line.sendall(f"GET /livez HTTP/1.1\r\n{hosts}\r\n".encode())
        answer = all_of(line)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"has one Host header" in answer
    with connected(client) as line:  # as it was before there was one
        line.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert all_of(line).startswith(b"HTTP/1.1 200 ")
