"""What becomes of requests when files, clients, decoders and the service itself misbehave.

    python benchmarks/faults.py [--mutations] [--attacks] [--memory] [--doors] [--kills] [--drain]
        [--files 10000] [--seconds 15]

All tables unless some are named, in Markdown. The service is a process of its own; each table tells
statuses, requests without any answer, deaths of the service, decoders that were replaced, and the
highest RSS of the service and its decoders together, in MB.
"""

import argparse
import asyncio
import base64
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from serve import SERVE, children_mb, children_of, decoders, load, recording, resident_mb, viola
from timing import spread
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

sys.path.append(str(Path(__file__).parents[1]))  # the makers of broken files are those of the tests
from service.traffic.auth import digest_of, new_key
from tests import hostile
from tests.mutations import kind_and_mutated
from tests.spellings import spellings

URL = "/v1/audio/embeddings"
INFER = "/v2/models/default/infer"
OPENAI = "/v1/embeddings"
AS_JSON = {"Content-Type": "application/json"}
JSON_URL = f"{URL}?output=base64"
# Where mutated files go, and how often
ROUTES = {
    JSON_URL: 14,
    "/v1/audio/analyze?output=base64": 2,
    "/v1/audio/inspect?decode=true": 2,
    f"{JSON_URL}&stream=true&window_s=0.2": 1,
    "WebSocket": 1,
}
N_CLIENTS = 4
KILL_EVERY_S = (0.0, 1.0, 0.2)  # never, then ever more often
N_INFLIGHT = 100
N_CONNECTIONS = 17
NO_ANSWER = 0
FRAME_S = 0.08  # of the default encoder: the smallest window


class Outcomes(Counter[int]):
    """How many requests had which status; 0 is none at all."""

    def row(self) -> str:
        """The cells of a table."""
        classes = Counter(status // 100 for status in self.elements() if status != 503)
        cells = [classes[2], classes[4], self[503], classes[5], self[NO_ANSWER]]
        return " | ".join(map(str, cells))


HEAD = "2xx | 4xx | 503 | other 5xx | no answer"
LINE = "---|---|---|---|---"


class Peak:
    """The highest RSS of a process and what it has started, looked at every few ms.

    Of what was forked its own pages count: the others are those of the process that it is from.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def taken_mb(self) -> float:
        """Since the last time that this was asked."""
        self._look()
        found, self._mb = self._mb, 0.0
        return found

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._look()

    def _look(self) -> None:
        self._mb = max(self._mb, resident_mb(self.pid) + children_mb(self.pid))


@contextmanager
def service(**how: object) -> Iterator[tuple[httpx.Client, int, Peak]]:
    """A service and a client of it; that the process has not died is part of the outcome."""
    with viola(**how) as (port, pid):
        peak = Peak(pid)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client, pid, peak
            peak.stop()
            restarts = re.findall(
                r'restarts_total\{cause="(\w+)"\} ([\d.]+)', client.get("/metrics").text
            )
        replaced = {cause: int(float(count)) for cause, count in restarts if float(count)}
        print(f"\ndecoders replaced: {replaced or 'none'}; the service died: {not alive(pid)}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def post(client: httpx.Client, path: str, **request: object) -> int:
    """The status, or that there is none."""
    try:
        return client.post(path, **request).status_code  # type: ignore[arg-type]
    except httpx.HTTPError:
        return NO_ANSWER


# Mutated files


def mutations(asked: argparse.Namespace) -> None:
    """Files of every format with bytes changed, cut out, put in, repeated, or the end cut off."""
    n_files = asked.files
    results: list[tuple[str, str, int]] = []
    distinct: set[int] = set()
    routes, rng = [r for r, weight in ROUTES.items() for _ in range(weight)], random.Random(0)

    with service() as (client, _, peak), ThreadPoolExecutor(N_CLIENTS) as clients:
        room = threading.BoundedSemaphore(2 * N_CLIENTS)

        def one(kind: str, data: bytes, route: str) -> None:
            is_live = route == "WebSocket"
            status = live(client, data) if is_live else post(client, route, content=data)
            results.append((route, kind, status))
            room.release()

        @settings(
            max_examples=2 * n_files,  # of which a fifth has been there before
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(kind_and_mutated())
        def send(drawn: tuple[str, bytes]) -> None:
            kind, data = drawn
            if len(distinct) == n_files or hash(data) in distinct:
                return
            distinct.add(hash(data))
            room.acquire()
            clients.submit(one, kind, data, rng.choice(routes))

        send()
        clients.shutdown()
        print(f"\n{len(results)} mutated files, all different")
        print(f"highest RSS: {peak.taken_mb():.0f} MB")
        for column, what in enumerate(("to", "format")):
            print(f"\n| {what} | {HEAD} |\n|---|{LINE}|")
            for name in sorted({result[column] for result in results}):
                counts = Outcomes(result[2] for result in results if result[column] == name)
                print(f"| {re.sub('output=base64&?', '', name).rstrip('?')} | {counts.row()} |")


def live(client: httpx.Client, data: bytes) -> int:
    """A file's bytes as if they were PCM: the close code as a status."""
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))
    config = {"sample_rate": 16_000, "encoding": "f32le", "window_s": 0.2}
    code = 0
    with suppress(OSError, TimeoutError, WebSocketException), connect(url, max_size=None) as line:
        with suppress(ConnectionClosed):
            line.send(json.dumps(config))
            line.send(data)
            line.send(json.dumps({"end": True}))
            while True:
                line.recv(timeout=60)
        code = line.close_code or 0
    return 200 if code == 1000 else code - 4000 if code > 4000 else NO_ANSWER


# Attacks


def attacks(_: argparse.Namespace) -> None:
    """Every row of the table of attacks; the decoder's memory is its highest RSS."""
    rows: dict[str, list[tuple[str, Callable[[httpx.Client], int]]]] = {}
    for name, file in hostile.FILES.items():
        data = file.make()
        rows.setdefault(file.attack, []).append((name, _poster(URL, content=data)))
    wav = hostile.second_of_flac()
    rows["file name"] = [
        (name[:20], _poster(URL, files={"file": (name, wav)})) for name in hostile.FILE_NAMES
    ]
    rows["form"] = [
        (name, _poster(URL, content=body, headers=hostile.FORM))
        for name, body in hostile.FORMS.items()
    ]
    chunked = "Transfer-Encoding: chunked\r\n"
    rows["chunks that lie"] = [("", _wire(chunked, chunks)) for chunks in hostile.CHUNKS]
    rows["lengths that contradict"] = [
        (fields, _wire(fields, b"hello")) for fields in hostile.LENGTHS
    ]
    rows["a body that trickles"] = [("", _wire("Content-Length: 100000\r\n", b"x", wait=True))]
    rows["a head that trickles"] = [("", _wire("", b"", whole=False, wait=True))]
    rows["playlist, URL"] = [
        ("", _poster(URL, content=text.format(url="http://127.0.0.1:1/a", port=1).encode()))
        for text in hostile.PLAYLISTS
    ] + [("", _poster(f"{URL}?url=file:///etc/passwd", content=wav))]
    rows["compressed body"] = [
        ("", _poster(URL, content=wav, headers={"Content-Encoding": "gzip"}))
    ]
    rows["a model by name"] = [
        (name, _poster(URL, content=wav, params={"model": name}))
        for name in ("../tiny", "/etc/passwd", "http://example.com/m.onnx")
    ]
    rows["words for the log"] = [
        ("", _poster('/nowhere%0A{"event":"forged"}')),
        ("", _poster(URL, content=wav, params={"model": 'x\n{"event":"forged"}'})),
    ]
    rows["a decoder that hangs"] = [("", _hanging)]
    rows["a client that leaves"] = [("", _leaving)]
    limits = {"decode_workers": 1, "decode_wall_s": 3, "head_timeout_s": 2, "body_grace_s": 1}
    with service(**limits) as (client, pid, peak):
        columns = "slowest, s | decoder, MB | all, MB"
        print(f"\n| attack | cases | {HEAD} | {columns} |\n|---|---|{LINE}|---|---|---|")
        for attack, cases in rows.items():
            outcomes, took = Outcomes(), [0.0]
            for _name, run in cases:
                started = time.perf_counter()
                outcomes[run(client)] += 1
                took.append(time.perf_counter() - started)
            grown = max((peak_mb(child) for child in decoders(pid)), default=0.0)
            cells = f"{max(took):.2f} | {grown:.0f} | {peak.taken_mb():.0f}"
            print(f"| {attack} | {len(cases)} | {outcomes.row()} | {cells} |")
        good = post(client, URL, content=wav)
        print(f"\nafter all of them a good file is answered with {good}")


def _poster(path: str, **request: object) -> Callable[[httpx.Client], int]:
    return lambda client: post(client, path, **request)


def _wire(
    fields: str, body: bytes, *, whole: bool = True, wait: bool = False
) -> Callable[[httpx.Client], int]:
    """What no client would send: a status, 400 also where the service hangs up without one."""
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\n{fields}" + "\r\n" * whole

    def send(client: httpx.Client) -> int:
        address = (client.base_url.host, client.base_url.port or 80)
        with socket.create_connection(address, 20) as line:
            answer = b""
            with suppress(ConnectionError):
                line.sendall(head.encode() + body)
                if not wait:
                    line.shutdown(socket.SHUT_WR)
                while received := line.recv(65_536):
                    answer += received
            return int(answer.split()[1]) if answer else 400

    return send


def _hanging(client: httpx.Client) -> int:
    """The decoder stands still; its time is up before that of the request."""
    for parent in children_of(os.getpid()):
        for pid in decoders(parent):
            os.kill(pid, signal.SIGSTOP)
    return post(client, URL, content=hostile.second_of_flac())


def _leaving(client: httpx.Client) -> int:
    """The client goes while its file is decoded; what it asked for must end with it."""
    with suppress(httpx.TimeoutException):
        client.post(URL, content=hostile.silence(500, 48_000, 1), timeout=0.3)
    for _ in range(100):
        if "viola_inflight_requests 0.0" in client.get("/metrics").text:
            return 499
        time.sleep(0.1)
    return NO_ANSWER


def peak_mb(pid: int) -> float:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else 0.0
    return 0.0


# Memory


def memory(_: argparse.Namespace) -> None:
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


# Doors


def doors(_: argparse.Namespace) -> None:
    """Whoever comes in another way than by the door; "as it should be" counts cases."""
    names = ("embed", "classify", "metrics")
    keys = {name: new_key() for name in names}
    lines = " ".join(f"{name}:{digest_of(key)}:{name}" for name, key in keys.items())
    print(f"\n| who comes | cases | {HEAD} | as it should be | service, MB |")
    print(f"|---|---|{LINE}|---|---|")
    with service(api_keys=lines, max_connections=N_CONNECTIONS) as (client, pid, _):
        tell = partial(_tell, pid)
        tell("a path in other spellings, a key of another scope", *_spelled(client, keys))
        tell("a handshake without a key, with one of another scope", *_handshakes(client, keys))
        tell(
            "no place left by self-tests: embeddings beside them", *_beside_selftests(client, keys)
        )
        tell("probes beside silent connections, many too many", *_crowded(client))
    keeping = tempfile.TemporaryDirectory()
    with (
        keeping as data,
        service(max_live_streams=1, head_timeout_s=5, data=data) as (client, pid, _),
    ):
        tell = partial(_tell, pid)
        tell("a page of another origin", *_pages(client))
        tell("a live stream beside silent sockets", *_beside_silence(client))
        tell("numbers out of any bounds", *_numbers(client))
        tell("half a head behind a request", *_half_heads(client))
        tell("HEAD where there is GET", *_heads(client))
    codes = [_start(VIOLA_API_KEYS=""), _start(VIOLA_API_KEYS_FILE="")]
    print(f"\nexit codes of a start with an empty variable of keys: {codes}")


def _start(**environment: str) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        command = [sys.executable, "-c", SERVE, "--port", str(free.getsockname()[1])]
    paths = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, env=os.environ | paths | environment, timeout=300).returncode


def _tell(pid: int, who: str, found: list[int], expected: set[int]) -> None:
    good = sum(status in expected for status in found)
    print(f"| {who} | {len(found)} | {Outcomes(found).row()} | {good} | {peak_mb(pid):.0f} |")


def _spelled(client: httpx.Client, keys: dict[str, str]) -> tuple[list[int], set[int]]:
    """No key has all that these need."""
    address, found = (client.base_url.host, client.base_url.port), []
    line = http.client.HTTPConnection(*address, timeout=10)
    for path, method in (("/v1/audio/analyze", "POST"), ("/metrics", "GET"), (URL, "POST")):
        for other in (path, *spellings(path)):
            for name in ("classify",) if path == URL else ("embed", "classify"):
                line.request(method, other, headers={"Authorization": f"Bearer {keys[name]}"})
                with line.getresponse() as answer:
                    answer.read()
                found.append(answer.status)
    return found, {400, 403, 404}


def _handshake(client: httpx.Client, **headers: str) -> int:
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))
    try:
        with connect(url, additional_headers=headers):
            return 200
    except InvalidStatus as refusal:
        return refusal.response.status_code


def _handshakes(client: httpx.Client, keys: dict[str, str]) -> tuple[list[int], set[int]]:
    known = [_handshake(client, Authorization=f"Bearer {key}") for key in keys.values()]
    return [_handshake(client), *known], {401, 403}


def _beside_selftests(client: httpx.Client, keys: dict[str, str]) -> tuple[list[int], set[int]]:
    wav, stop = hostile.second_of_flac(), threading.Event()

    def test_again_and_again() -> None:
        headers = {"Authorization": f"Bearer {keys['metrics']}"}
        with httpx.Client(base_url=client.base_url, headers=headers, timeout=60) as other:
            while not stop.is_set():
                other.get("/v1/selftest")

    with ThreadPoolExecutor(15) as threads:  # as many as may be connected, less one
        for _ in range(15):
            threads.submit(test_again_and_again)
        headers = {"Authorization": f"Bearer {keys['embed']}"}
        found = [post(client, URL, content=wav, headers=headers) for _ in range(15)]
        stop.set()
    return found, {200}


def _crowded(client: httpx.Client) -> tuple[list[int], set[int]]:
    address, found = (client.base_url.host, client.base_url.port or 80), []
    with ExitStack() as silent:
        for _ in range(10 * N_CONNECTIONS):
            silent.enter_context(socket.create_connection(address))
        for path in ("/livez", "/readyz", "/healthz") * 10:
            found.append(httpx.get(f"{client.base_url}{path}").status_code)
        found.append(client.get("/v1/limits").status_code)  # who was there before: no key
    return found, {200, 401}


def _pages(client: httpx.Client) -> tuple[list[int], set[int]]:
    origins = (
        "https://evil.example",
        "null",
        f"{client.base_url}.evil.example",
        "http://127.0.0.1",
    )
    found = [_handshake(client, Origin=origin) for origin in origins]
    page = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    form = {"file": hostile.second_of_flac()}
    return [*found, post(client, URL, files=form, headers=page)], {403}


def _beside_silence(client: httpx.Client) -> tuple[list[int], set[int]]:
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))
    with ExitStack() as silent:
        lines = [silent.enter_context(connect(url)) for _ in range(8)]
        for line in lines[:4]:
            line.send(json.dumps({"sample_rate": 16_000}))
            line.send(b"")
        return [live(client, bytes(64_000)) for _ in range(5)], {200}


def _numbers(client: httpx.Client) -> tuple[list[int], set[int]]:
    wav, found = hostile.second_of_flac(), []
    for path in ("embeddings", "analyze", "inspect", "embeddings?stream=true"):
        for name in ("window_s", "hop_s"):
            for text in ("nan", "inf", "1e308", "-1", "0", "1" * 400, "1e-320"):
                asked = {"window_s": "1"} | {name: text}
                url = httpx.URL(f"/v1/audio/{path}").copy_merge_params(asked)
                found.append(post(client, str(url), content=wav))
    return found, {400}


def _half_heads(client: httpx.Client) -> tuple[list[int], set[int]]:
    slow = hostile.silence(300, 48_000, 1)
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(slow)}\r\n\r\n"
    found, address = [], (client.base_url.host, client.base_url.port or 80)
    for rest in (b"G", b"GET /livez HT", b"\0rubbish", b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 4000):
        with socket.create_connection(address, 60) as line:
            line.sendall(head.encode() + slow + rest)
            answer = line.recv(65_536)
            found.append(int(answer.split()[1]) if answer else NO_ANSWER)
    return found, {200}


def _heads(client: httpx.Client) -> tuple[list[int], set[int]]:
    document = client.get("/openapi.json").json()["paths"]
    paths = [path for path, methods in document.items() if "get" in methods and "{" not in path]
    return [client.head(path).status_code for path in paths], {200}


# Killed decoders


def kills(asked: argparse.Namespace) -> None:
    """Decoders killed again and again under steady load, and what that costs the neighbours."""
    columns = "p50, ms | p99, ms | RSS, MB"
    print(f"\n| a kill every | killed | {HEAD} | {columns} |\n|---|---|{LINE}|---|---|---|")
    p99: dict[float, list[float]] = {every_s: [] for every_s in KILL_EVERY_S}
    with service() as (client, pid, peak), tempfile.TemporaryDirectory() as folder:
        port, file = client.base_url.port, str(recording(Path(folder), 1, "FLAC"))
        load(port, JSON_URL, 2, file=file)
        found = load(port, JSON_URL, 5, file=file)
        rate = sum(status == 200 for status, _ in found["results"]) / found["seconds"] / 4
        for number, every_s in enumerate(KILL_EVERY_S * 3):
            with killing(pid, every_s) if every_s else nullcontext([]) as victims:
                found = load(port, JSON_URL, asked.seconds, file=file, rate=rate, seed=number)
            outcomes = Outcomes(status for status, _ in found["results"])
            times = np.array([s for status, s in found["results"] if status == 200]) * 1000
            p50, high = np.percentile(times, [50, 99])
            p99[every_s].append(float(high))
            often = f"{every_s:g} s" if every_s else "never"
            cells = f"{p50:.1f} | {high:.1f} | {peak.taken_mb():.0f}"
            print(f"| {often} | {len(victims)} | {outcomes.row()} | {cells} |")
    print(f"\n{rate:.0f} requests a second; medians of p99 against that without kills:")
    for every_s in KILL_EVERY_S[1:]:
        print(f"every {every_s:g} s: {median(p99[every_s]) / median(p99[0.0]) - 1:+.0%}")


@contextmanager
def killing(pid: int, every_s: float) -> Iterator[list[int]]:
    """One decoder after the other is killed meanwhile."""
    victims: list[int] = []
    stop, rng = threading.Event(), random.Random(0)

    def kill() -> None:
        while not stop.wait(every_s):
            if living := decoders(pid):
                victims.append(rng.choice(living))
                with suppress(ProcessLookupError):
                    os.kill(victims[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield victims
    finally:
        stop.set()
        thread.join()


# SIGTERM


def drain(_: argparse.Namespace) -> None:
    """SIGTERM with a hundred requests in hand, ten times; once with too little time for them."""
    print(f"\n{N_INFLIGHT} requests in hand, then SIGTERM")
    print(
        f"\n| clips, time to end | {HEAD} | exit code | seconds to the end | RSS, MB |\n"
        f"|---|{LINE}|---|---|---|"
    )
    took = []
    for clip_s, limit_s in [(2, 25)] * 10 + [(20, 2)]:
        clip = hostile.silence(clip_s, 16_000, 1)
        outcomes, seconds, code, mb = asyncio.run(_drained(clip, limit_s))
        took.append(seconds)
        cells = f"{code} | {seconds:.2f} | {mb:.0f}"
        print(f"| {clip_s} s, {limit_s} s | {outcomes.row()} | {cells} |")
    print(f"\nseconds to the end of the first ten: {spread(took[:10])}")


async def _drained(clip: bytes, limit_s: int) -> tuple[Outcomes, float, int, float]:
    """Outcomes, seconds to the end, exit code, highest RSS."""
    how = {"max_inflight": 200, "max_queue_s": 10_000, "drain_delay_s": 0.2}
    with viola(**how, shutdown_timeout_s=limit_s) as (port, pid):
        peak = Peak(pid)
        base, pool = f"http://127.0.0.1:{port}", httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=base, timeout=60, limits=pool) as client:

            async def one() -> int:
                try:
                    return (await client.post(JSON_URL, content=clip)).status_code
                except httpx.HTTPError:
                    return NO_ANSWER

            tasks = [asyncio.create_task(one()) for _ in range(N_INFLIGHT)]
            most = 0.0
            while most < N_INFLIGHT and not any(task.done() for task in tasks):
                found = re.search(
                    r"inflight_requests ([\d.]+)", (await client.get("/metrics")).text
                )
                most = max(most, float(found[1]) if found else 0.0)
            started = time.perf_counter()
            os.kill(pid, signal.SIGTERM)
            outcomes = Outcomes(await asyncio.gather(*tasks))
        ended = await asyncio.to_thread(_ended, pid)
        peak.stop()
        return outcomes, time.perf_counter() - started, ended, peak.taken_mb()


def _ended(pid: int) -> int:
    """The exit code; the process stays to be waited for by who has started it."""
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert info is not None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


TABLES = {
    "mutations": mutations,
    "attacks": attacks,
    "memory": memory,
    "doors": doors,
    "kills": kills,
    "drain": drain,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, table in TABLES.items():
        parser.add_argument(f"--{name}", action="store_true", help=table.__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="different mutated ones")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row of kills")
    asked = parser.parse_args()
    for name in [name for name in TABLES if getattr(asked, name)] or TABLES:
        TABLES[name](asked)


if __name__ == "__main__":
    main()
