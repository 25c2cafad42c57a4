"""Many small jobs, and workers that are killed every few seconds: each is done, once.

    python benchmarks/jobs_kill.py --jobs 1000
    python benchmarks/jobs_kill.py --jobs 1000 --store postgresql [--database-url postgresql://...]

Jobs of one second of sound are put into a new store. Workers (`viola worker`, some at once) are
ended by kill -9 at random moments and started again, until all jobs are done. Then everything is
looked at: each job is done, its result is there once and is the one that was asked for, nothing is
left in the queue, and each second was counted once. The order in which jobs ended and the time from
submission to the end are shown. PostgreSQL is a server of its own unless one is named; the server
itself is not killed.
"""

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile as sf

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.postgres import server
from service.collections.job_records import Job, NewJob
from service.collections.store import Store, open_shared_store, open_store
from service.queues.local import LocalQueue
from service.queues.postgres import PostgresQueue
from service.queues.queue import Queue

SECONDS = 1.0
RATE = 16_000
OWNER = "benchmark"
MOST = 1 << 40
STORES = ("sqlite", "postgresql")
WORKER = [sys.executable, "-m", "viola", "worker"]


def opened(where: str, lapse_s: float) -> tuple[Store, Queue]:
    if "://" in where:
        return open_shared_store(where), PostgresQueue(where, lapse_s)
    return open_store(Path(where)), LocalQueue(Path(where), lapse_s)


@contextmanager
def place(asked: argparse.Namespace) -> Iterator[str]:
    """Where the store is: a folder, or a database's address."""
    if asked.store == "postgresql":
        with server(asked.database_url) as address:
            yield address
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield folder


def sound(number: int) -> bytes:
    """A tone of a height of its own."""
    t = np.arange(round(SECONDS * RATE)) / RATE
    file = io.BytesIO()
    sf.write(file, 0.5 * np.sin(2 * np.pi * (100 + 2 * number) * t), RATE, format="FLAC")
    return file.getvalue()


def submit(store: Store, queue: Queue, number: int) -> str:
    content = sound(number)
    upload = store.uploads.create(
        OWNER, len(content), f"{number}.flac", most_bytes=MOST, kept_s=3600
    )
    store.uploads.append(OWNER, upload.id, 0, content)
    new = NewJob(OWNER, "", "embed", {"dimensions": 8}, (upload.id,))
    return store.jobs.submit(new, 10**9, queue.put)[0].id


class Workers:
    """Some workers, of which one at a time is killed and started again."""

    def __init__(self, n: int, environment: dict[str, str]) -> None:
        self._environment = environment
        self._running = [self._start() for _ in range(n)]
        self.n_killed = 0

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(WORKER, env=self._environment, start_new_session=True)

    def kill_one(self, rng: random.Random) -> None:
        place = rng.randrange(len(self._running))
        self._end(self._running[place])
        self.n_killed += 1
        self._running[place] = self._start()

    def end(self) -> None:
        for process in self._running:
            self._end(process)

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        # With its decoders: they would end by themselves when they find their pipe closed
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until_done(
    store: Store, names: list[str], workers: Workers, asked: argparse.Namespace
) -> float:
    """Kill workers until all jobs have ended; seconds that it took."""
    rng, started = random.Random(asked.seed), time.monotonic()
    before, next_kill = len(names), None
    while waiting := len(store.jobs.waiting()):
        now = time.monotonic()
        if now > started + asked.patience_s:
            raise SystemExit(
                f"{waiting} of {len(names)} jobs still wait after {now - started:.0f} s"
            )
        if next_kill is None and waiting < before:
            # Workers that are killed before they have done anything would prove nothing
            next_kill = now + asked.kill_every_s * 2 * rng.random()
        if next_kill is not None and now > next_kill:
            workers.kill_one(rng)
            before, next_kill = waiting, None
        time.sleep(0.1)
    return time.monotonic() - started


def check(store: Store, names: list[str]) -> list[Job]:
    """Compare what is there with what was asked for."""
    jobs = [store.jobs.get(OWNER, name) for name in names]
    vectors = set()
    for number, job in enumerate(jobs):
        assert job.state == "done", (job.state, job.error)
        assert (job.n_done, job.n_failed) == (1, 0), job
        lines = [json.loads(line) for line in b"".join(store.jobs.result(job)).splitlines()]
        assert [line["object"] for line in lines] == ["file", "embedding", "done"], lines
        assert lines[0]["file"] == f"{number}.flac"
        vectors.add(json.dumps(lines[1]["embedding"]))
        assert abs(job.audio_s - SECONDS) < 0.05, job.audio_s
    assert len(vectors) > 0.9 * len(names)  # each has its own
    return jobs


def told(jobs: list[Job], workers: Workers, took_s: float, submit_s: float) -> str:
    """What was found, in words."""
    latency = np.array([job.ended_at - job.created_at for job in jobs])  # type: ignore[operator]
    work = np.array([job.ended_at - job.started_at for job in jobs])  # type: ignore[operator]
    order = np.argsort([job.ended_at for job in jobs])
    late = np.abs(order - np.arange(len(jobs)))
    again = sum(job.attempt > 1 for job in jobs)
    return (
        f"{len(jobs)} jobs, {workers.n_killed} kills: all done once, {again} of them begun again "
        f"(at the most {max(job.attempt for job in jobs)} times); none lost, none twice.\n"
        f"submitted in {submit_s:.1f} s ({1000 * submit_s / len(jobs):.1f} ms each), done in "
        f"{took_s:.1f} s ({len(jobs) / took_s:.1f} a second)\n"
        f"from submission to end: median {np.median(latency):.1f} s, p99 "
        f"{np.percentile(latency, 99):.1f} s, longest {latency.max():.1f} s; in hand: median "
        f"{np.median(work):.2f} s, longest {work.max():.1f} s\n"
        f"order: ended {np.median(late):.0f} places from where it was submitted (median), "
        f"{np.percentile(late, 99):.0f} (p99), {late.max()} at the most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--kill-every-s",
        type=float,
        default=4.0,
        help="in the mean, counted from the first job that ends after the last kill",
    )
    parser.add_argument("--lapse-s", type=float, default=5.0)
    parser.add_argument("--patience-s", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", help="else the default encoder")
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--database-url", help="a PostgreSQL database; else a server of its own")
    asked = parser.parse_args()
    with place(asked) as where:
        store, queue = opened(where, asked.lapse_s)
        environment = os.environ | {
            "VIOLA_DATABASE_URL" if "://" in where else "VIOLA_DATA": where,
            "VIOLA_JOB_LAPSE_S": str(asked.lapse_s),
            "VIOLA_DECODE_WORKERS": "1",
            "VIOLA_THREADS": "1",
            "VIOLA_LOG_LEVEL": "error",
        }
        if asked.models:
            environment["VIOLA_MODELS"] = asked.models
        started = time.monotonic()
        names = [submit(store, queue, number) for number in range(asked.jobs)]
        submit_s = time.monotonic() - started
        workers = Workers(asked.workers, environment)
        try:
            took_s = until_done(store, names, workers, asked)
        finally:
            workers.end()
        print(told(check(store, names), workers, took_s, submit_s))
        for name in names:
            store.jobs.delete(OWNER, name)
        queue.close()
        store.close()


if __name__ == "__main__":
    main()
