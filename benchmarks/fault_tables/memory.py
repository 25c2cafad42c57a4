"""What is sent to fill the memory, and answers that nobody reads."""

import argparse
import base64
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

import httpx

from benchmarks.fault_tables.service import (
    HEAD,
    JSON_URL,
    LINE,
    NO_ANSWER,
    URL,
    Outcomes,
    alive,
    live,
    post,
    service,
)
from tests import hostile

INFER = "/v2/models/default/infer"
OPENAI = "/v1/embeddings"
AS_JSON = {"Content-Type": "application/json"}
FRAME_S = 0.08  # of the default encoder: the smallest window


def table(_: argparse.Namespace) -> None:
    """What is sent to fill the memory, and answers that nobody reads; the settings are defaults."""
    opus = hostile.silence(300, 8_000, 1, hostile.OPUS)
    large, wav = f"{URL}?window_s={FRAME_S}&hop_s={FRAME_S}", hostile.loud_wav(590)
    encoded = base64.b64encode(hostile.loud_wav(580))  # as much as a body may hold
    rows: dict[str, Callable[[httpx.Client], Outcomes]] = {
        "nothing": lambda client: Outcomes([client.get("/readyz").status_code]),
        "8,000,000 rows in 91 bytes": _times(1, INFER, content=hostile.rows(8_000_000)),
        "2^62 rows": _times(1, INFER, content=hostile.rows(1 << 62)),
        "a million numbers": _times(4, INFER, content=hostile.numbers(1_000_000)),
        "arrays in arrays": _times(4, INFER, content=b"[" * (20 << 20)),
        "a wide object": _times(4, OPENAI, content=hostile.wide_object(20 << 20), headers=AS_JSON),
        "40 MB of JSON, 8 clients": _times(8, large, content=opus),
        "40 MB of JSON, 6 that read nothing": partial(_unread, 6, large, opus, 20.0),
        "documents that nobody reads": partial(_unread, 300, "/openapi.json", b"", 5.0),
        "10 minutes of WAV, 16 clients": _times(16, JSON_URL, content=wav),
        "the same in forms": _times(16, JSON_URL, files={"file": wav}),
        "the same in base64": _times(
            16, OPENAI, content=b'{"input":"' + encoded + b'"}', headers=AS_JSON
        ),
        "25 MB that stop before the end": partial(_unfinished, 16, bytes(24 << 20)),
        "half messages of 900 WebSockets": _half_messages,
        "pings whose answers nobody reads": _pings,
        "60,000 requests that wait for none, 4 clients": partial(_pipelined, 4),
        "halves of 900 uploads in parts": partial(_half_uploads, 900),
        "900 forms of jobs that stop": partial(_half_forms, 900),
        "4 streams that nobody reads": partial(_unread, 4, f"{large}&stream=true", wav, 10.0),
        "a good file": _times(1, URL, content=hostile.second_of_flac()),
    }
    keeping = tempfile.TemporaryDirectory()
    with keeping as data, service(data=data) as (client, pid, peak):
        client.post(large, content=hostile.second_of_flac()).raise_for_status()
        print(f"\n| what | {HEAD} | took, s | RSS, MB | alive |\n|---|{LINE}|---|---|---|")
        for name, run in rows.items():
            peak.taken_mb()
            started = time.perf_counter()
            outcomes = run(client)
            took, mb = time.perf_counter() - started, peak.taken_mb()
            print(f"| {name} | {outcomes.row()} | {took:.1f} | {mb:.0f} | {alive(pid)} |")


def _times(n: int, path: str, **request: object) -> Callable[[httpx.Client], Outcomes]:
    """The same request so many times at once, with the patience of an ordinary client."""

    def run(client: httpx.Client) -> Outcomes:
        with ThreadPoolExecutor(n) as clients:
            return Outcomes(clients.map(lambda _: post(client, path, **request), range(n)))

    return run


def _unread(n: int, path: str, body: bytes, seconds: float, client: httpx.Client) -> Outcomes:
    """So many sockets that ask and read nothing but the status, which comes at the end."""
    method = "POST" if body else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with ExitStack() as open_:
        lines = []
        for _ in range(n):
            lines.append(open_.enter_context(socket.socket()))
            lines[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lines[-1].connect((client.base_url.host, client.base_url.port or 80))
            lines[-1].settimeout(60)
            lines[-1].sendall(head.encode() + body)
        time.sleep(seconds)
        return Outcomes(map(_status, lines))


def _status(line: socket.socket) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(line.recv(64).split()[1])
    return NO_ANSWER


def _unfinished(n: int, body: bytes, client: httpx.Client) -> Outcomes:
    """So many uploads that stop a byte before the end."""
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 1}\r\n\r\n"

    def send(_: int) -> int:
        with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as line:
            with suppress(OSError):
                line.sendall(head.encode() + body)
            line.settimeout(90)
            return _status(line)

    with ThreadPoolExecutor(n) as clients:
        return Outcomes(clients.map(send, range(n)))


def _half_messages(client: httpx.Client) -> Outcomes:
    """Messages of live streams that stop before their end; then one in earnest."""
    with ExitStack() as open_:
        for _ in range(900):
            line = open_.enter_context(_handshaken(client))
            with suppress(OSError):  # it had to go for a newer one
                line.sendall(b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes((1 << 20) - 60))
        time.sleep(2)
        return Outcomes([live(client, bytes(4 * 16_000))])


def _pings(client: httpx.Client) -> Outcomes:
    """As many pings as go out in ten seconds, on sockets that never read."""
    with ExitStack() as open_:
        lines = [open_.enter_context(_handshaken(client)) for _ in range(4)]
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for line in lines:
                line.settimeout(0.05)
                with suppress(OSError):
                    line.sendall((b"\x89\xfd" + bytes(4 + 125)) * 1000)
        return Outcomes([client.get("/livez").status_code])


def _handshaken(client: httpx.Client) -> socket.socket:
    line = socket.create_connection((client.base_url.host, client.base_url.port or 80))
    line.settimeout(60)
    line.sendall(
        b"GET /v1/audio/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    line.recv(4096)
    return line


def _pipelined(n: int, client: httpx.Client) -> Outcomes:
    """Requests behind a request, none of which waits for an answer."""
    wav = hostile.second_of_flac()
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(wav)}\r\n\r\n".encode()
    with ExitStack() as open_:
        lines = []
        for _ in range(n):
            address = (client.base_url.host, client.base_url.port or 80)
            lines.append(open_.enter_context(socket.create_connection(address)))
            lines[-1].settimeout(60)
            with suppress(OSError):  # it closes after some
                lines[-1].sendall(head + wav + b"GET / HTTP/1.1\r\n\r\n" * 60_000)
        time.sleep(10)
        return Outcomes(map(_status, lines))


def _half_uploads(n: int, client: httpx.Client) -> Outcomes:
    """Uploads in parts (tus) whose bodies stop."""

    def head(_: int) -> str:
        where = client.post("/v1/uploads", headers={"Upload-Length": str(2 << 20)}).headers
        return (
            f"PATCH {where['Location']} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\n"
            "Content-Type: application/offset+octet-stream\r\n"
            f"Content-Length: {2 << 20}\r\n\r\n"
        )

    return _half_bodies(n, head, client)


def _half_forms(n: int, client: httpx.Client) -> Outcomes:
    """Jobs whose forms stop."""
    text = (
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )
    return _half_bodies(n, lambda _: text, client)


def _half_bodies(n: int, head: Callable[[int], str], client: httpx.Client) -> Outcomes:
    """Requests of which a megabyte comes and no more; with no answer they wait for the rest."""
    with ExitStack() as open_:
        lines = []
        for number in range(n):
            address = (client.base_url.host, client.base_url.port or 80)
            lines.append(open_.enter_context(socket.create_connection(address)))
            with suppress(OSError):
                lines[-1].settimeout(5)
                lines[-1].sendall(head(number).encode() + bytes((1 << 20) - 4096))
        time.sleep(3)
        for line in lines:
            line.settimeout(0.01)
        found = Outcomes(map(_status, lines))
        del found[NO_ANSWER]  # these wait for the rest
        return found
