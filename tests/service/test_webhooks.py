"""Who waits for a job is told, provably by us, and nobody else is ever connected to."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from service.collecting import Collecting
from service.collections.job_records import NewJob, Step
from service.jobs import webhooks
from service.problems import Problem
from service.queueing import Queueing
from service.settings import Settings
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.test_jobs import ended, submit
from tests.service.traffic.test_refusals import refused

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
SOUND = {"a": encoded(tone(1.0))}


class Receiver(HTTPServer):
    """Answers with the statuses that it is given, and keeps what comes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = []
        self.came: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.came.append((self.path, headers, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Location", f"{self.server.origin}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def check_signature(headers: dict[str, str], body: bytes) -> None:
    """As a receiver does by the specification of Standard Webhooks."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    versions = dict(one.split(",", 1) for one in headers["webhook-signature"].split(" "))
    assert hmac.compare_digest(versions["v1"], expected)


def test_the_end_of_a_job_is_told_and_signed(
    serve: Serve, tmp_path: Path, receiver: Receiver
) -> None:
    webhook = {"url": f"{receiver.origin}/hook?a=b", "secret": SECRET}
    with serve(data=tmp_path, webhook_origins=(receiver.origin,)) as client:
        job = submit(client, SOUND, embed={}, webhook=webhook)
        assert "secret" not in json.dumps(job)
        until(lambda: ended(client, job)["webhook"] == "delivered")
    ((path, headers, body),) = receiver.came
    assert (path, headers["webhook-id"]) == ("/hook?a=b", job["id"])
    check_signature(headers, body)
    told = json.loads(body)
    assert (told["type"], told["data"]["id"]) == ("job.done", job["id"])
    assert told["data"]["files_done"] == 1


def drip(listening: socket.socket, is_over: threading.Event) -> None:
    """Answer a byte at a time, and never whole."""
    line, _ = listening.accept()
    with line, suppress(OSError):
        while not is_over.wait(0.02):
            line.sendall(b"H")


def test_who_answers_a_byte_at_a_time_keeps_no_worker(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(webhooks, "RETRIES_S", ())
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        dripping = threading.Thread(target=drip, args=(listening, is_over))
        dripping.start()
        with serve(data=tmp_path, webhook_origins=(origin,)) as client:
            webhook = {"url": origin, "secret": SECRET}
            slow = submit(client, SOUND, embed={}, webhook=webhook)
            until(lambda: ended(client, slow)["webhook"] == "failed")
            assert ended(client, submit(client, SOUND, embed={}))["state"] == "done"
        is_over.set()
        dripping.join()


def test_who_does_not_answer_takes_no_place_of_a_job(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 120.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with serve(data=tmp_path, webhook_origins=(origin,), job_workers=1) as client:
            silent = submit(client, SOUND, embed={}, webhook={"url": origin, "secret": SECRET})
            line, _ = listening.accept()
            with line:
                assert ended(client, submit(client, SOUND, embed={}))["state"] == "done"
                assert ended(client, silent)["webhook"] == "pending"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_what_does_not_speak_http_has_not_taken_it(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reply() -> None:
            line, _ = listening.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(answer)

        replying = threading.Thread(target=reply, daemon=True)
        replying.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(httpx.HTTPError):
            asyncio.run(webhooks._status(url, {}, b"{}"))
        replying.join()


def test_an_origin_may_be_an_address_of_ipv6() -> None:
    webhooks.check_webhook("http://[::1]:9000/x", ["http://[::1]:9000"])


def test_who_does_not_take_it_is_told_again_with_patience(
    serve: Serve, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "RETRIES_S", (0.01, 0.01))
    webhook = {"url": receiver.origin, "secret": SECRET}
    with serve(data=tmp_path, webhook_origins=(receiver.origin,)) as client:
        receiver.statuses += [500, 302]
        job = submit(client, SOUND, embed={}, webhook=webhook)
        until(lambda: ended(client, job)["webhook"] == "delivered")
        assert [path for path, _, _ in receiver.came] == ["/"] * 3  # redirections lead nowhere
        assert {headers["webhook-id"] for _, headers, _ in receiver.came} == {job["id"]}
        receiver.statuses += [503] * 3
        lost = submit(client, SOUND, embed={}, webhook=webhook)
        until(lambda: ended(client, lost)["webhook"] == "failed")
        assert len(receiver.came) == 6


@pytest.mark.parametrize(
    "url",
    [
        "https://b.example/",
        "http://a.example/",
        "https://a.example:8443/",
        "https://a.example@b.example/",
        "https://user@a.example/",
        "https://a.example.b.example/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://a.example:99999/",
    ],
)
def test_only_origins_that_the_operator_named_are_posted_to(url: str) -> None:
    webhooks.check_webhook("https://a.example/x?y", ["https://a.example"])
    with pytest.raises(Problem) as caught:
        webhooks.check_webhook(url, ["https://a.example"])
    assert caught.value.kind.slug == "webhook-not-allowed"


def test_without_named_origins_there_are_no_webhooks(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path) as client:
        for secret, slug in ((SECRET, "webhook-not-allowed"), ("whsec_eA==", "invalid-parameter")):
            body = {"embed": {}, "webhook": {"url": "https://a.example", "secret": secret}}
            refused(client.post("/v1/jobs", json=body), slug)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://user:word@a.example/", "has no user and no password"),
        ("https://a.example:99999/", "posted to 'https://a.example:99999/'"),
        ("https://b.example/", "posted to the origin 'https://b.example'"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(url: str, reason: str) -> None:
    with pytest.raises(Problem, match=reason):
        webhooks.check_webhook(url, ["https://a.example"])


@pytest.mark.parametrize(
    "document",
    [
        {"embed": {}, "webhook": {"url": "https://a.example", "secret": "whsec_" + SECRET[6:20]}},
        {"embed": {}, "webhook": {"url": "https://a.example", "secret": [SECRET]}},
        {"embed": {}, "webhook": {"url": "https://a.example", "secret": {"a": SECRET}}},
        {"embed": {}, "webhook": {"secret": SECRET}},
        {"webhook": {"url": "https://a.example", "secret": SECRET}},
        {"embed": {}, "uploads": {"webhook": [{"secret": SECRET}]}},
    ],
)
def test_a_secret_is_not_in_the_log(serve: Serve, tmp_path: Path, document: dict[str, Any]) -> None:
    with serve(data=tmp_path) as client, capture_logs() as logs:
        answer = client.post("/v1/jobs", json=document)
        refused(answer, "invalid-parameter")
    assert SECRET[6:11] not in answer.text
    assert SECRET[6:11] not in str(logs)


@pytest.mark.parametrize("origin", ["a.example", "https://a.example/", "*", "ftp://a.example"])
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Settings(webhook_origins=(origin,))


def test_a_queue_that_was_lost_is_filled_with_ends_that_nobody_was_told_of(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    collecting = Collecting.open(settings)
    assert collecting is not None
    store, told = collecting.store, {"url": "https://a.example/hook", "secret": SECRET}
    new = NewJob("", "", "teach", {}, webhook=told)
    over, _ = store.jobs.submit(new, 9, lambda *step: None)
    store.jobs.cancel("", over.id, 30.0, 3600.0, lambda *step: None)
    waiting, _ = store.jobs.submit(new, 9, lambda *step: None)
    queueing = Queueing.open(settings, collecting)  # whose queue has nothing
    assert queueing is not None
    done: list[tuple[str, str]] = []

    async def handle(step: str, job: str) -> None:
        done.append((step, job))

    async def work(kind: Step, n_done: int) -> None:
        working = asyncio.create_task(queueing.queue.work(kind, handle, 1))
        while len(done) < n_done:
            await asyncio.sleep(0.05)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(asyncio.wait_for(work("run", 1), 120))
    asyncio.run(asyncio.wait_for(work("tell", 2), 120))
    queueing.queue.close()
    store.close()
    assert done == [("run", waiting.id), ("tell", over.id)]
