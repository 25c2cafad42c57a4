"""The service as an operator runs it: drained, reloaded, checked, confined."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner

import viola
from models.modelfile import DEFAULT_MODEL
from service import hangups
from service.app import create_app
from service.inference.catalogue import Catalogue, Refused, Served
from service.inference.kind import Kind
from service.inference.kinds.classifier import KIND as CLASSIFIER
from service.inference.kinds.encoder import KIND as ENCODER
from service.listening import listen
from service.problems import Problem
from service.reloading import merged, reload
from service.server import Server
from service.settings import Settings
from service.traffic.auth import digest_of, new_key
from service.traffic.drain import Drain
from tests.service.conftest import encoded, tone, until, write_model
from tests.service.telemetry.test_metrics import scraped
from tests.service.test_process import SERVE, invoked
from tests.service.traffic.test_connections import all_of
from tests.service.traffic.test_refusals import refused

ROOT = Path(__file__).parent.parent.parent
URL = "/v1/audio/embeddings"
SLOW_ABOVE_5_S = """
import time, structlog
from models.runtime import Encoder

compute = Encoder.run_batch

def slow(self, output, clips, bucket):
    until = time.monotonic() + (60 if len(clips[0]) > 5 * 16_000 else 0)
    if until > time.monotonic():
        structlog.get_logger().warning("slow")
    while time.monotonic() < until:
        compute(self, output, clips, bucket)
    return compute(self, output, clips, bucket)

Encoder.run_batch = slow
"""


@dataclass
class Running:
    """The command in a process of its own, with what it has said."""

    process: subprocess.Popen[str]
    client: httpx.Client
    said: list[str] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, list(self.said)) if line["event"] == name]

    def ended(self) -> int:
        return self.process.wait(timeout=30)


@contextmanager
def running(
    port: int, shell: str = "exec", cwd: Path = ROOT, code: str = SERVE, **env: object
) -> Iterator[Running]:
    """Start it with these settings and wait until it is ready."""
    variables = {f"VIOLA_{name.upper()}": str(value) for name, value in env.items()}
    variables = {
        "VIOLA_THREADS": "1",
        "VIOLA_PORT": str(port),
        "VIOLA_DRAIN_DELAY_S": "0",
    } | variables
    places = dict.fromkeys(("HOME", "TMPDIR"), str(cwd)) if cwd != ROOT else {}
    process = subprocess.Popen(
        ["sh", "-c", f'{shell} "$@"', "sh", sys.executable, "-c", code],
        env=os.environ
        | variables
        | places
        | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        it = Running(process, client)
        assert process.stderr is not None
        reader = threading.Thread(target=it.said.extend, args=(process.stderr,))
        reader.start()
        try:
            until(lambda: process.poll() is not None or answers(client), 30)
            assert process.poll() is None, it.said
            yield it
        finally:
            if process.poll() is None:
                process.kill()
            reader.join()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def test_one_connection_too_many_gets_a_problem_and_nobody_else_does(
    model_file: Path, port: int
) -> None:
    limits = f"http://127.0.0.1:{port}/v1/limits"
    with (
        running(port, models=model_file, max_connections=2) as it,
        socket.create_connection(("127.0.0.1", port)),
    ):
        assert it.client.get(limits).status_code == 200
        with httpx.Client() as newest:
            problem = refused(newest.get(limits), "overloaded")
            assert (problem["limit"], problem["observed"]) == (2, 3)
            assert problem["unit"] == "connections"
            answer = newest.get(limits)
            assert (answer.headers["Connection"], answer.headers["Retry-After"]) == ("close", "1")
            for probe in ("/livez", "/readyz", "/healthz", "/v2/health/ready"):
                assert newest.get(f"http://127.0.0.1:{port}{probe}").status_code == 200
                assert newest.head(f"http://127.0.0.1:{port}{probe}").status_code == 200
            assert it.client.get(limits).status_code == 200  # who was there stays
            it.client.close()
            until(lambda: newest.get(limits).status_code == 200)


def test_silent_connections_do_not_keep_a_probe_out(model_file: Path, port: int) -> None:
    with running(port, models=model_file, max_connections=2) as it, ExitStack() as silent:
        for _ in range(200):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert it.client.get("/v1/limits").status_code == 200
        for _ in range(20):
            assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200


def test_sigterm_finishes_what_is_in_hand_and_refuses_what_is_new(
    model_file: Path, port: int
) -> None:
    slow = encoded(np.zeros(150 * 48_000, np.int16), rate=48_000, kind="FLAC")
    n, go_on = 12, threading.Event()

    def in_two_parts() -> Iterator[bytes]:
        yield slow[:-1]
        go_on.wait()
        yield slow[-1:]

    with running(port, models=model_file, max_inflight=64, body_grace_s=60) as it:

        def send(_: int) -> httpx.Response:
            url, headers = f"http://127.0.0.1:{port}{URL}", {"Content-Length": str(len(slow))}
            return httpx.post(url, content=in_two_parts(), headers=headers, timeout=60)

        with ThreadPoolExecutor(n) as threads:
            waiting = [threads.submit(send, k) for k in range(n)]
            try:
                until(lambda: scraped(it.client)["viola_inflight_requests"] == n, 60)
                it.process.send_signal(signal.SIGTERM)
                until(lambda: it.client.get("/readyz").status_code == 503)
                ready = it.client.get("/readyz")
                new = it.client.post(URL, content=encoded(tone()))
            finally:
                go_on.set()
            outcomes = [request.result() for request in waiting]
        assert it.ended() == 0
    assert "shutting down" in ready.json()["reasons"][0]
    assert ready.headers["Connection"] == "close"
    assert new.status_code == 503
    assert new.json()["type"] == "/problems/draining"
    assert (new.headers["Connection"], new.headers["Retry-After"]) == ("close", "5")
    assert [answer.status_code for answer in outcomes] == [200] * n
    assert not any(line["level"] == "error" for line in map(json.loads, it.said))


def test_a_balancer_has_time_to_notice_before_anything_is_refused(
    model_file: Path, port: int
) -> None:
    with running(port, models=model_file, drain_delay_s=1.0) as it:
        started = time.monotonic()
        it.process.send_signal(signal.SIGTERM)
        until(lambda: it.client.get("/readyz").status_code == 503)
        answer = it.client.post(URL, content=encoded(tone()))
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        assert it.ended() == 0
        assert 0.9 < time.monotonic() - started < 10


def test_a_person_who_presses_ctrl_c_does_not_wait_for_balancers(
    model_file: Path, port: int
) -> None:
    with running(port, models=model_file, drain_delay_s=60) as it:
        it.process.send_signal(signal.SIGINT)
        assert it.ended() == 0


def test_an_inference_that_the_end_cuts_short_does_not_abort_the_process(port: int) -> None:
    def send() -> None:
        with suppress(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{port}{URL}", content=encoded(tone(10.0)), timeout=60)

    slow = f"{SLOW_ABOVE_5_S}\n{SERVE}"
    with running(port, code=slow, models=DEFAULT_MODEL, shutdown_timeout_s=1) as it:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(send)
            until(lambda: it.events("slow"))
            it.process.send_signal(signal.SIGTERM)
        assert it.ended() == 0
        assert it.events("an inference is left behind")


def test_what_hangs_does_not_keep_the_process_beyond_its_time(model_file: Path, port: int) -> None:
    with running(port, models=model_file, shutdown_timeout_s=1) as it:
        head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(head.encode())
            until(lambda: scraped(it.client)["viola_inflight_requests"] == 1)
            it.process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            answer = b""
            while received := line.recv(65_536):
                answer += received
            assert answer.startswith(b"HTTP/1.1 503 ")  # whoever still waits is told so
            assert b"/problems/draining" in answer
            assert it.ended() == 0
            assert time.monotonic() - started < 8


TOLD_WITHOUT_ROOM = """
import threading
from service.server import Server

begin, start = Server.handle_exit, threading.Thread.start

def no_room(self):
    raise RuntimeError("can't start new thread")

def handle_exit(self, number, frame):
    threading.Thread.start = no_room
    begin(self, number, frame)
    threading.Thread.start = start

Server.handle_exit = handle_exit
"""
HANGING = """
import service.server, threading, time

service.server.GIVE_UP_S = 0.1
threading.Thread(target=time.sleep, args=(60,)).start()
"""


def test_it_leaves_as_ever_where_there_is_no_room_for_another_thread(
    model_file: Path, port: int
) -> None:
    with running(port, models=model_file, code=TOLD_WITHOUT_ROOM + SERVE) as it:
        it.process.send_signal(signal.SIGTERM)
        assert it.ended() == 0
    assert not [line for line in map(json.loads, it.said) if line["level"] == "error"]


def test_a_thread_that_hangs_does_not_keep_the_process(model_file: Path, port: int) -> None:
    with running(port, models=model_file, shutdown_timeout_s=1, code=HANGING + SERVE) as it:
        it.process.send_signal(signal.SIGTERM)
        assert it.ended() == 1
    assert it.events("not ended in time; something hangs")


BUSY_AT_THE_END = """
import os, time, structlog
from service.server import Server

end = Server.shutdown

async def shutdown(self, sockets=None):
    structlog.get_logger().warning("busy")
    while not os.path.exists({go_on!r}):
        time.sleep(0.01)
    await end(self, sockets)

Server.shutdown = shutdown
"""


def test_requests_that_come_at_the_very_end_are_answered(
    model_file: Path, port: int, tmp_path: Path
) -> None:
    address, body = ("127.0.0.1", port), encoded(tone())
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    go_on = tmp_path / "go on"
    code = BUSY_AT_THE_END.format(go_on=str(go_on)) + SERVE
    with (
        running(port, models=model_file, code=code, keep_alive_s=60) as it,
        socket.create_connection(address) as idle,
        ExitStack() as lines,
    ):
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        while not idle.recv(65_536).endswith(b"}"):
            pass
        it.process.send_signal(signal.SIGTERM)
        half = lines.enter_context(socket.create_connection(address))
        half.sendall(head[:20])
        accepted = lines.enter_context(socket.create_connection(address))
        until(lambda: it.events("busy"))
        waiting = [lines.enter_context(socket.create_connection(address)) for _ in range(20)]
        half.sendall(head[20:] + body)
        for line in (idle, accepted, *waiting):
            line.sendall(head + body)
        silent = lines.enter_context(socket.create_connection(address))
        go_on.touch()
        for line in (idle, half, accepted, *waiting):
            answer = all_of(line)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"/problems/draining" in answer
            assert b"connection: close" in answer.lower()
        assert all_of(silent) == b""
        assert it.ended() == 0
    assert not any(line["level"] == "error" for line in map(json.loads, it.said))


def test_clients_that_go_on_trying_do_not_keep_it() -> None:
    drain = Drain(timeout_s=60)
    app: Any = SimpleNamespace(state=SimpleNamespace(gate=SimpleNamespace(drain=drain)))
    server = Server(uvicorn.Config(app), app, "")

    async def ends_with(*requests: Any) -> bool:
        server.server_state.tasks = set(requests)
        return await server.on_tick(0)

    async def ticks() -> list[bool]:
        before = await ends_with("long")
        drain.begin()
        told = await ends_with("long", "short")
        return [before, told, await ends_with("long", "refused"), await ends_with("refused too")]

    assert asyncio.run(ticks()) == [False, False, False, True]


def test_a_refusal_reaches_who_is_still_sending(model_file: Path, port: int) -> None:
    body = bytes(20 << 20)
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        running(port, models=model_file, body_grace_s=60) as it,
        socket.create_connection(("127.0.0.1", port)) as held,
    ):
        held.sendall(head + b"0")
        until(lambda: scraped(it.client)["viola_inflight_requests"] == 1)
        it.process.send_signal(signal.SIGTERM)
        until(lambda: it.client.get("/readyz").status_code == 503)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as line:
                line.sendall(head + body)  # in one go, before it looks for an answer
                answer = all_of(line)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"/problems/draining" in answer


def test_a_second_signal_ends_it_at_once_and_quietly(model_file: Path, port: int) -> None:
    with running(port, models=model_file, drain_delay_s=60) as it:
        it.process.send_signal(signal.SIGTERM)
        until(lambda: it.client.get("/readyz").status_code == 503)
        it.process.send_signal(signal.SIGTERM)
        assert it.ended() == 0
    assert not [line for line in it.said if "Traceback" in line]


def test_a_signal_ends_a_start_and_hangups_before_it_is_ready_are_one_reload(
    model_file: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that fails for a reason that nobody thought of does not keep the next one away."""
    app = create_app(Settings(models=model_file, threads=1, drain_delay_s=0))
    server = Server(uvicorn.Config(app, log_config=None, lifespan="off"), app, "")
    load, handlers = app.router.lifespan_context, [signal.getsignal(signal.SIGTERM)]

    @asynccontextmanager
    async def loading(app: FastAPI) -> AsyncIterator[Any]:
        handlers.append(signal.getsignal(signal.SIGTERM))
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        async with load(app) as state:
            yield state

    def reloads() -> float:
        context = getattr(app.state, "context", None)
        return context and context.metrics.registry.get_sample_value(
            "viola_reloads_total", {"outcome": "done"}
        )

    async def reload_or_fail(*given: Any) -> None:
        asked.append(given)
        if len(asked) == 1:
            raise RuntimeError("a fault")
        await reload(*given)

    def tell() -> None:
        until(lambda: len(asked) == 1)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: reloads() == 1)
        handlers.append(signal.getsignal(signal.SIGTERM))
        server.drain.begin(at_once=True)  # a signal would end this process, some time later

    asked: list[Any] = []
    monkeypatch.setattr("service.server.reload", reload_or_fail)
    app.router.lifespan_context = loading
    telling = threading.Thread(target=tell)
    with hangups.kept(), listen("127.0.0.1", port) as listening:
        signal.raise_signal(signal.SIGHUP)
        telling.start()
        server.run([listening])
    telling.join()
    before = signal.getsignal(signal.SIGTERM)
    assert handlers == [before, before, server.handle_exit]
    assert len(asked) == 2


def test_the_drain_goes_by_steps() -> None:
    now = [0.0]
    drain = Drain(delay_s=3, timeout_s=10, clock=lambda: now[0])
    drain.check()
    assert not drain.is_over(0)
    drain.begin()
    now[0] = 2.9
    drain.check()
    assert not drain.is_over(0)
    now[0] = 3.0
    with pytest.raises(Problem):
        drain.check()
    assert not drain.is_over(1)
    assert drain.is_over(0)
    now[0] = 10.0
    assert drain.is_over(1)


def test_sighup_serves_new_models_and_keys_and_survives_broken_files(
    tmp_path: Path, port: int
) -> None:
    folder, keys = tmp_path / "models", tmp_path / "keys"
    folder.mkdir()
    old, new = new_key(), new_key()
    write_model(folder / "a.onnx", "a")
    keys.write_text(f"old:{digest_of(old)}:embed,metrics\n")
    with running(port, models=folder, api_keys_file=keys) as it:

        def hang_up(outcome: str, key: str) -> None:
            done = f'viola_reloads_total{{outcome="{outcome}"}}'
            it.client.headers["Authorization"] = f"Bearer {key}"
            before = len(it.events("reloaded"))
            it.process.send_signal(signal.SIGHUP)
            until(lambda: len(it.events("reloaded")) > before)
            until(lambda: scraped(it.client).get(done, 0) >= 1)

        def models() -> set[str]:
            return {model["id"] for model in it.client.get("/v1/models").json()["data"]}

        it.client.headers["Authorization"] = f"Bearer {old}"
        stop, failures = threading.Event(), []

        def keep_asking() -> None:
            with httpx.Client(base_url=it.client.base_url, headers=it.client.headers) as other:
                while not stop.is_set():
                    answer = other.post(URL, content=encoded(tone()))
                    if answer.status_code != 200:
                        failures.append(answer.text)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        write_model(folder / "b.onnx", "b")
        hang_up("done", old)
        assert models() == {"a", "b"}
        (folder / "a.onnx").write_bytes(b"broken")
        keys.write_text("broken")
        hang_up("refused", old)
        stop.set()
        asking.join()
        assert not failures
        assert models() == {"a", "b"}
        assert it.client.get("/readyz").status_code == 200
        assert it.client.post(URL, content=encoded(tone())).json()["model"] == "a"
        keys.write_text(f"new:{digest_of(new)}:embed,metrics\n")
        (folder / "a.onnx").unlink()
        it.client.headers["Authorization"] = f"Bearer {old}"
        it.process.send_signal(signal.SIGHUP)
        until(lambda: it.client.get("/v1/models").status_code == 401)
        it.client.headers["Authorization"] = f"Bearer {new}"
        until(lambda: models() == {"b"})
        it.process.send_signal(signal.SIGTERM)
        assert it.ended() == 0
    assert {line["name"] for line in it.events("old one stays")} == {"a"}
    assert it.events("keys not reloaded; the old ones stay")
    assert it.events("model refused")


def catalogue(
    *files: str, classifiers: tuple[str, ...] = (), refused: tuple[str, ...] = (), version: int = 1
) -> Catalogue:
    """Models and classifiers called like their files, told apart by their golden errors."""

    def of(kind: Kind, name: str) -> Any:
        network: Any = SimpleNamespace(card=SimpleNamespace(name=name, space_id="space"))
        return Served(kind, network, version, f"{name}.onnx")

    served = [of(ENCODER, name) for name in files]
    return Catalogue(
        [*served, *(of(CLASSIFIER, name) for name in classifiers)],
        [Refused(ENCODER, f"{name}.onnx", "broken") for name in refused],
    )


def versions(merged: Catalogue) -> dict[str, float]:
    return {item.name: item.golden_error for item in merged}


def test_a_broken_file_leaves_its_old_content_and_a_missing_one_nothing() -> None:
    old = catalogue("default", "b", "gone", classifiers=("h", "i"))
    new = catalogue("b", classifiers=("i",), refused=("default", "h"), version=2)
    result = merged(old, new, None)
    assert versions(result) == {"default": 1, "b": 2, "h": 1, "i": 2}
    assert result.default == "default"
    assert [refused.file for refused in result.refused] == ["default.onnx", "h.onnx"]


def test_where_nothing_would_be_left_to_serve_all_stays_as_it_was() -> None:
    old = catalogue("a", "b")
    assert versions(merged(old, catalogue(), None)) == {"a": 1, "b": 1}
    assert versions(merged(old, catalogue("b", version=2), "a")) == {"a": 1, "b": 1}
    assert versions(merged(catalogue(), catalogue("a", version=2), None)) == {"a": 2}


def test_a_check_tells_what_would_be_served_by_its_exit_code_too(
    tmp_path: Path, model_file: Path
) -> None:
    shutil.copy(model_file, tmp_path / "tiny.onnx")
    command = [sys.executable, "-m", "viola", "serve", "--check"]
    settings = {"VIOLA_THREADS": "1", "VIOLA_MODELS": str(tmp_path), "VIOLA_DATA": str(tmp_path)}
    checked = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    said = checked.stdout
    assert [json.loads(line)["event"].split(",")[0] for line in checked.stderr.splitlines()] == [
        "model ready",
        "tables of the collections brought up to date",
    ]
    assert "tiny, space space-of-tiny" in said
    assert "none: the service is open" in said
    assert said.endswith("ready to serve\n")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    bad = invoked("--check", VIOLA_MODELS=tmp_path, VIOLA_API_KEYS=f"web:{'0' * 64}")
    assert bad.exit_code == 1
    assert "broken.onnx" in bad.stdout
    assert "keys        web" in bad.stdout
    assert invoked("--check", VIOLA_MODELS=tmp_path / "none").exit_code == 2
    unusable = invoked("--check", VIOLA_API_KEYS="web:secret")
    assert unusable.exit_code == 2
    assert "VIOLA_API_KEYS, line 1" in unusable.stderr
    assert "secret" not in unusable.stderr
    misnamed = {"VIOLA_REDIS_URL": "localhost:6379", "VIOLA_HOST": "", "VIOLA_PORT": "x"}
    for name, value in misnamed.items():  # as a start refuses them
        ended = invoked("--check", **{name: value})
        assert (ended.exit_code, name in ended.stderr) == (2, True)


def test_keys_that_cannot_be_used_keep_the_service_from_starting_open(tmp_path: Path) -> None:
    app = viola.build()
    ended = CliRunner().invoke(app, ["serve"], env={"VIOLA_API_KEYS_FILE": str(tmp_path / "none")})
    assert ended.exit_code == 2
    assert "cannot be read" in ended.stderr


def test_it_serves_where_no_file_can_be_written_and_leaves_none_of_what_it_was_sent(
    model_file: Path, port: int, tmp_path: Path
) -> None:
    loud = encoded(tone(60.0))  # above the megabyte from which Starlette writes parts to disk
    mp3 = b"\xff\xfb\x90\x00" + os.urandom(30_000)  # which its library comments on
    with running(port, "ulimit -f 0 && exec", tmp_path, models=model_file) as it:
        files = [("file", ("whose-secret\n.wav", loud)), ("file", ("whose-secret.mp3", mp3))]
        answer = it.client.post(URL, files=files, data={"window_s": "1"})
        assert answer.status_code == 200
        assert len(answer.json()["data"][0]["windows"]) == 60
        assert (
            it.client.post(URL, content=loud, params={"model": "whose-secret"}).status_code == 404
        )
        assert it.client.post(URL, content=b"whose-secret").status_code == 415
        assert it.client.get("/docs").status_code == 200
        it.process.send_signal(signal.SIGTERM)
        assert it.ended() == 0
    assert list(tmp_path.iterdir()) == []
    posted = [line for line in it.events("request") if line["route"] == URL]
    assert len(posted) == 3
    said = "".join(it.said)
    assert "whose-secret" not in said.replace("no model 'whose-secret'", "")


def test_an_open_service_beyond_this_machine_is_warned_of(model_file: Path, port: int) -> None:
    with running(port, models=model_file, host="0.0.0.0") as it:
        (warning,) = [line for line in map(json.loads, list(it.said)) if line["level"] == "warning"]
    assert "no API keys" in warning["event"]
