"""Workers as processes of their own, on both stores: killed, stopped, and side by side."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

import viola
from service.collections.database import _LOCK
from service.collections.job_records import Job, NewJob
from service.collections.store import Store, open_shared_store, open_store
from service.queues.local import LocalQueue
from service.queues.postgres import PostgresQueue
from service.queues.queue import Queue
from tests.service.conftest import encoded, tone, until
from tests.service.traffic.test_two_replicas import free_port

WORKER = "import service.commands.serving, typer; typer.run(service.commands.serving.worker)"
LAPSE_S = 1.0
MOST = 1 << 30


class Place:
    """A store and its queue, and workers for them."""

    def __init__(self, store: Store, queue: Queue, environment: dict[str, str]) -> None:
        self.store, self.queue, self._environment = store, queue, environment

    def submit(self, *contents: bytes, kind: str = "embed", **asked: Any) -> str:
        names = []
        for content in contents:
            upload = self.store.uploads.create(
                "", len(content), "a.wav", most_bytes=MOST, kept_s=60
            )
            self.store.uploads.append("", upload.id, 0, content)
            names.append(upload.id)
        new = NewJob("", "", kind, asked, tuple(names))
        return self.store.jobs.submit(new, 10_000, self.queue.put)[0].id

    def job(self, name: str) -> Job:
        return self.store.jobs.get("", name)

    def lines(self, name: str) -> list[dict[str, Any]]:
        content = b"".join(self.store.jobs.result(self.job(name)))
        return [json.loads(line) for line in content.splitlines()]

    @contextmanager
    def worker(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        environment = self._environment | settings
        process = subprocess.Popen([sys.executable, "-c", WORKER], env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path, model_file: Path) -> Iterator[Place]:
    common = {
        "VIOLA_MODELS": str(model_file),
        "VIOLA_THREADS": "1",
        "VIOLA_JOB_LAPSE_S": str(LAPSE_S),
        "VIOLA_LOG_LEVEL": "error",
    }
    if request.param == "sqlite":
        store: Store = open_store(tmp_path)
        queue: Queue = LocalQueue(tmp_path, LAPSE_S)
        common["VIOLA_DATA"] = str(tmp_path)
    else:
        address = request.getfixturevalue("postgres")
        store, queue = open_shared_store(address), PostgresQueue(address, LAPSE_S)
        common["VIOLA_DATABASE_URL"] = address
    yield Place(store, queue, os.environ | common)
    queue.close()
    if request.param == "postgres":
        with store.database.write() as connection:
            connection.execute(text("DELETE FROM jobs"))
            connection.execute(text("DELETE FROM procrastinate_jobs"))
    store.close()


def test_a_worker_killed_in_mid_job_loses_nothing_and_doubles_nothing(place: Place) -> None:
    files = [encoded(tone(1.0, hz=100 + n)) for n in range(12)]
    name = place.submit(*files, window_s=0.5)
    with place.worker() as first:
        until(lambda: place.job(name).n_done >= 2, 60)
        first.send_signal(signal.SIGKILL)
        first.wait()
    cut = place.job(name)
    assert (cut.state, cut.attempt) == ("running", 1)
    assert 2 <= cut.n_done < 12
    with place.worker() as second:
        until(lambda: place.job(name).state == "done", 60)
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    done = place.job(name)
    assert (done.attempt, done.n_done, done.n_failed) == (2, 12, 0)
    lines = place.lines(name)
    assert [line["index"] for line in lines if line["object"] == "file"] == list(range(12))
    assert sum(line["object"] == "embedding" for line in lines) == 12
    assert done.audio_s == pytest.approx(12.0, abs=0.1)


def test_a_worker_that_is_hung_up_puts_its_job_down(place: Place) -> None:
    name = place.submit(*[encoded(tone(1.0))] * 100)
    with place.worker() as worker:
        until(lambda: place.job(name).n_done >= 1, 60)
        worker.send_signal(signal.SIGHUP)
        assert worker.wait(30) == 0
    job = place.job(name)
    assert job.state == "queued"
    assert 1 <= job.n_done < 100


def test_a_worker_whose_start_hangs_can_be_ended(postgres: str, model_file: Path) -> None:
    store = open_shared_store(postgres)
    environment = {"VIOLA_DATABASE_URL": postgres, "VIOLA_MODELS": str(model_file)}
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with store.database.write() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        command = [sys.executable, "-c", WORKER]
        with subprocess.Popen(command, env=os.environ | environment) as worker:
            try:
                until(lambda: connection.execute(waiting).scalar_one() == 1, 60)
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(30) == -signal.SIGTERM
            finally:
                worker.kill()
    store.close()


WRONG_CLOCK = """
import sys, time
right = time.time
time.time = lambda: right() + float(sys.argv[2])
from service.collections.store import open_shared_store

store = open_shared_store(sys.argv[1])
print(store.attempts.begin(sys.argv[3], 30.0, 60.0, lambda *step: None))
print(store.attempts.silent(30.0))
"""


@pytest.mark.parametrize("ahead_s", [600, -600])
def test_a_worker_whose_clock_is_wrong_neither_takes_a_job_nor_leaves_it(
    postgres: str, ahead_s: int
) -> None:
    store, queue = open_shared_store(postgres), PostgresQueue(postgres, LAPSE_S)
    live, dead = (
        store.jobs.submit(NewJob("", "", "teach", {"n": n}), 9, queue.put)[0].id for n in range(2)
    )
    for name in (live, dead):
        store.attempts.begin(name, 30.0, 60.0, queue.put)
    with store.database.write() as connection:
        connection.execute(
            text("UPDATE jobs SET beat_at = beat_at - 31 WHERE name = :n"), {"n": dead}
        )

    def begun(name: str) -> list[str]:
        command = [sys.executable, "-c", WRONG_CLOCK, postgres, str(ahead_s), name]
        return subprocess.check_output(command, text=True).splitlines()

    left_s, silent = begun(live)
    assert 20 < float(left_s) <= 30
    assert silent == str([dead])
    assert begun(dead)[0].startswith("Job(")
    with store.database.write() as connection:
        connection.execute(text("DELETE FROM jobs"))
        connection.execute(text("DELETE FROM procrastinate_jobs"))
    store.close()


def test_a_worker_tells_how_it_is_and_nothing_else(place: Place) -> None:
    port = free_port()
    place.submit(encoded(tone(1.0)))
    name = place.submit(encoded(tone(1.0)))
    with (
        place.worker(VIOLA_WORKER_PORT=str(port)) as worker,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        until(lambda: place.job(name).state == "done", 60)
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/audio/embeddings", content=b"").status_code == 404
        assert client.get("/v1/jobs").status_code == 404
        ended = 'viola_job_duration_seconds_count{kind="embed",state="done"} 2.0'
        until(lambda: ended in client.get("/metrics").text)
        page = client.get("/metrics").text
        assert "viola_worker_places 1.0" in page
        assert 'viola_job_wait_seconds_count{kind="embed"} 2.0' in page
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


def test_a_worker_without_a_store_says_what_is_missing() -> None:
    ended = CliRunner().invoke(viola.build(), ["worker"])
    assert ended.exit_code == 2
    assert "set VIOLA_DATA or VIOLA_DATABASE_URL" in ended.stderr
