"""Files and requests that are made to hurt."""

import argparse
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import httpx

from benchmarks.fault_tables.service import (
    HEAD,
    LINE,
    NO_ANSWER,
    URL,
    Outcomes,
    peak_mb,
    post,
    service,
)
from benchmarks.processes import children_of, decoders
from tests import hostile


def table(_: argparse.Namespace) -> None:
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
