"""What both queues promise: order, one worker a step, again when a worker asks for it or dies."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from service.collections.database import Database, open_postgres, open_sqlite
from service.collections.folder import QUEUE
from service.collections.job_records import Step
from service.queues import local
from service.queues.local import LocalQueue
from service.queues.postgres import PostgresQueue
from service.queues.queue import Again, Handle, Queue
from tests.service.collections.postgres_server import PostgresServer, started_server

LAPSE_S = 1.0

Open = Callable[[], Queue]


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if kind == "sqlite":
        opened = open_sqlite(tmp_path)
    else:
        opened = open_postgres(request.getfixturevalue("postgres"))
    yield opened
    if kind == "postgres":
        with opened.write() as connection:
            connection.execute(text("DELETE FROM procrastinate_jobs"))
    opened.close()


@pytest.fixture
def open_queue(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the queue of the test, as each process does."""
    opened: list[Queue] = []

    def open_one() -> Queue:
        if kind == "sqlite":
            opened.append(LocalQueue(tmp_path, LAPSE_S))
        else:
            opened.append(PostgresQueue(request.getfixturevalue("postgres"), LAPSE_S))
        return opened[-1]

    yield open_one
    for queue in opened:
        queue.close()


def put(database: Database, queue: Queue, *names: str, kind: Step = "run") -> None:
    for name in names:
        with database.write() as connection:
            queue.put(connection, kind, name)


async def worked(
    work: Handle, is_over: Callable[[], bool], *queues: Queue, kind: Step = "run"
) -> None:
    """Let each queue's worker do steps of a kind until it is over."""
    working = [asyncio.create_task(queue.work(kind, work, 1)) for queue in queues]
    try:
        async with asyncio.timeout(90):
            while not is_over():
                await asyncio.sleep(0.02)
    finally:
        for task in working:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def test_steps_are_done_in_their_order(database: Database, open_queue: Open) -> None:
    names = [str(n) for n in range(12)]
    put(database, open_queue(), *names)
    begun: list[tuple[str, str]] = []

    async def work(step: str, job: str) -> None:
        begun.append((step, job))

    asyncio.run(worked(work, lambda: len(begun) == 12, open_queue()))
    assert begun == [("run", name) for name in names]


def test_ends_are_told_whatever_work_was_put_before(database: Database, open_queue: Open) -> None:
    put(database, open_queue(), "a", "b")
    put(database, open_queue(), "c", kind="tell")
    done: list[tuple[str, str]] = []

    async def work(step: str, job: str) -> None:
        done.append((step, job))

    asyncio.run(worked(work, lambda: bool(done), open_queue(), kind="tell"))
    assert done == [("tell", "c")]
    asyncio.run(worked(work, lambda: len(done) == 3, open_queue()))
    assert done[1:] == [("run", "a"), ("run", "b")]


def test_each_step_is_done_by_one_of_two_workers(database: Database, open_queue: Open) -> None:
    names = {str(n) for n in range(8)}
    put(database, open_queue(), *names)
    begun: list[str] = []
    in_hand: set[str] = set()

    async def work(step: str, job: str) -> None:
        assert job not in in_hand
        begun.append(job)
        in_hand.add(job)
        assert len(in_hand) <= 2
        await asyncio.sleep(0.02)
        in_hand.discard(job)

    asyncio.run(worked(work, lambda: len(begun) >= 8 and not in_hand, open_queue(), open_queue()))
    assert sorted(begun) == sorted(names)


def test_a_step_comes_again_when_it_is_asked_for_or_fails(
    database: Database, open_queue: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.queues.local.ERROR_S", 0.05)
    monkeypatch.setattr("service.queues.postgres.ERROR_S", 0.05)
    monkeypatch.setattr("service.queues.postgres.POLL_S", 0.05)
    queue, times = open_queue(), 0
    put(database, queue, "a")

    async def work(step: str, job: str) -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise Again(0.05)
        if times == 2:
            raise RuntimeError("a fault of ours")

    asyncio.run(worked(work, lambda: times == 3, queue))
    assert times == 3


def test_what_a_silent_worker_had_goes_to_another(
    kind: str, database: Database, open_queue: Open
) -> None:
    queue = open_queue()
    put(database, queue, "a")
    if kind == "sqlite":
        assert isinstance(queue, LocalQueue)
        queue._lines["run"].get_nowait()  # and then it is not heard of
    else:
        with database.write() as connection:
            beat = (
                "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 h')"
            )
            worker = connection.execute(text(beat + " RETURNING id")).scalar_one()
            take = "UPDATE procrastinate_jobs SET status = 'doing', worker_id = :worker"
            connection.execute(text(take), {"worker": worker})
    done: list[str] = []

    async def work(step: str, job: str) -> None:
        done.append(job)

    asyncio.run(worked(work, lambda: bool(done), open_queue()))
    assert done == ["a"]


def test_what_is_put_in_a_transaction_that_fails_is_no_job(
    kind: str, database: Database, open_queue: Open
) -> None:
    queue = open_queue()
    with contextlib.suppress(ZeroDivisionError), database.write() as connection:
        queue.put(connection, "run", "a")
        raise ZeroDivisionError
    if kind == "postgres":  # on SQLite whoever takes it finds that there is no such job
        with database.read() as connection:
            query = text("SELECT count(*) FROM procrastinate_jobs")
            assert connection.execute(query).scalar_one() == 0


def test_a_worker_ends_though_its_postgresql_hangs() -> None:
    async def work(server: PostgresServer) -> float:
        open_postgres(server.address).close()  # makes the tables
        queue = PostgresQueue(server.address, LAPSE_S)

        async def do(step: Step, job: str) -> None:
            raise AssertionError(step, job)

        working = asyncio.create_task(queue.work("run", do, 1))
        await asyncio.sleep(1.0)
        with server.frozen():
            await asyncio.sleep(1.0)
            began = time.monotonic()
            working.cancel()
            await asyncio.wait([working], timeout=60)
            assert working.done()
            return time.monotonic() - began

    with started_server() as server:
        assert asyncio.run(work(server)) < 20


def test_a_postgresql_that_is_lost_is_one_line_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(server: PostgresServer) -> None:
        open_postgres(server.address).close()  # makes the tables
        queue = PostgresQueue(server.address, LAPSE_S)

        async def do(step: Step, job: str) -> None:
            raise AssertionError(step, job)

        working = asyncio.create_task(queue.work("run", do, 1))
        await asyncio.sleep(2.0)
        await asyncio.to_thread(server.end)
        async with asyncio.timeout(60):
            while not logs:
                await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)  # in which there would be more lines
        working.cancel()
        await asyncio.wait([working], timeout=60)

    with capture_logs() as logs, started_server() as server:
        asyncio.run(work(server))
    assert [line["event"] for line in logs] == ["the queue of jobs has lost its database"]
    assert not any("exc_info" in line or "\n" in line["reason"] for line in logs)
    assert not [one for one in caplog.records if one.name.startswith(("procrastinate", "psycopg"))]


def test_a_folder_that_is_away_is_one_line_and_one_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "ERROR_S", 0.02)
    queue, folder, elsewhere = LocalQueue(tmp_path, LAPSE_S), tmp_path / QUEUE, tmp_path / "away"

    async def do(step: Step, job: str) -> None:
        raise AssertionError(step, job)

    async def work() -> None:
        working = asyncio.create_task(queue.work("run", do, 1))
        for source, target, n_lines in ((folder, elsewhere, 1), (elsewhere, folder, 2)):
            source.rename(target)
            async with asyncio.timeout(20):
                while len(logs) < n_lines:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # in which there would be more lines
        working.cancel()
        await asyncio.wait([working])

    with capture_logs() as logs:
        asyncio.run(work())
    queue.close()
    events = [line["event"] for line in logs]
    assert events == ["the queue cannot be read", "the queue can be read again"]
