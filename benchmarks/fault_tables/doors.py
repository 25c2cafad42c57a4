"""Whoever comes in another way than by the door."""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from benchmarks.fault_tables.service import (
    HEAD,
    LINE,
    NO_ANSWER,
    URL,
    Outcomes,
    live,
    peak_mb,
    post,
    service,
)
from benchmarks.processes import SERVE
from service.traffic.auth import digest_of, new_key
from tests import hostile
from tests.spellings import spellings

N_CONNECTIONS = 17


def table(_: argparse.Namespace) -> None:
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
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
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
