"""Jobs are done though the clock is set back, while it runs and between two starts."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import queueing as queueing_module
from service.collecting import Collecting
from service.collections.folder import QUEUE
from service.collections.job_records import NewJob
from service.collections.records import StoreUnavailable
from service.queueing import Queueing
from service.settings import Settings

BACK_S = 3 * 3600.0


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Queueing]:
    settings = Settings(data=folder)
    collecting = Collecting.open(settings)
    queueing = Queueing.open(settings, collecting)
    assert collecting is not None
    assert queueing is not None
    yield queueing
    queueing.queue.close()
    collecting.store.close()


def submitted(queueing: Queueing) -> str:
    new = NewJob("", "", "teach", {})
    return queueing.store.jobs.submit(new, 100, queueing.queue.put)[0].id


LATER = """
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE messages SET available_at = available_at + 1000 * ?", [sys.argv[2]])
connection.commit()
"""


def set_back(folder: Path) -> None:
    """As if the clock had been set back since the queue was written.

    By another process: two SQLites in one would undo each other's locks on the file.
    """
    file = folder / QUEUE / "localqueue.db"
    subprocess.run([sys.executable, "-c", LATER, str(file), str(BACK_S)], check=True)
    for file in (folder / QUEUE).iterdir():
        os.utime(file, (time.time() + BACK_S,) * 2)


async def first_step(queueing: Queueing) -> str:
    """The job whose step is given first."""
    given: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handle(step: str, job: str) -> None:
        if not given.done():
            given.set_result(job)

    working = asyncio.create_task(queueing.queue.work("run", handle, 1))
    try:
        return await asyncio.wait_for(given, 20)
    finally:
        working.cancel()
        await asyncio.wait([working])


def test_a_start_after_the_clock_was_set_back_gives_what_waits(tmp_path: Path) -> None:
    with opened(tmp_path) as queueing:
        name = submitted(queueing)
    set_back(tmp_path)
    with opened(tmp_path) as queueing:
        assert asyncio.run(first_step(queueing)) == name


def test_a_queue_that_is_damaged_within_is_refused_with_the_way_on(tmp_path: Path) -> None:
    with opened(tmp_path) as queueing:
        for _ in range(50):
            name = submitted(queueing)
    (file,) = (tmp_path / QUEUE).glob("*.db")
    content, page, refusals = file.read_bytes(), 4096, []
    for start in range(page, len(content), page):
        file.write_bytes(content[:start] + b"\xff" * page + content[start + page :])
        try:
            with opened(tmp_path):
                pass  # it is not looked at before its steps are
        except StoreUnavailable as refused:
            refusals.append(refused.message)
    assert refusals
    assert all("damaged, remove it" in message for message in refusals)
    shutil.rmtree(tmp_path / QUEUE)
    with opened(tmp_path) as queueing:
        assert asyncio.run(first_step(queueing)) in queueing.store.jobs.waiting()
        assert name in queueing.store.jobs.waiting()


def test_a_clock_that_is_set_back_is_seen_and_what_waits_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing_module, "LOOK_S", 0.05)
    right = time.time
    with opened(tmp_path) as queueing:
        name = submitted(queueing)
        set_back(tmp_path)

        async def run() -> str:
            watching = asyncio.create_task(queueing.watch())
            await asyncio.sleep(0)
            object.__setattr__(queueing.store, "now", lambda: right() - BACK_S)
            try:
                return await first_step(queueing)
            finally:
                watching.cancel()
                await asyncio.wait([watching])

        assert asyncio.run(run()) == name
