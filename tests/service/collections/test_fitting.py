"""A fit in its own process: its answer, and what becomes of it when somebody ends it."""

import asyncio
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from models.classifier import Classifier
from models.classifiers.process import _answer_with_room
from models.classifiers.table import HEAD, Order, Table, packed, unframed
from service.collections.fitting import (
    PROCESS,
    Fit,
    FitFailed,
    FitLimits,
    FitProcess,
    FitRefused,
    Fits,
    FitTooLong,
    FitUnavailable,
    _read,
    fit,
)
from service.collections.teaching import Lesson, table_of
from tests.service.collections.lessons import all_labelled, windows
from tests.service.conftest import until

ORDER = Order("frogs", "pond", "tiny", "space-of-tiny")
LIMITS = FitLimits(timeout_s=300)  # of a machine with much else to do


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(windows(), all_labelled(), Lesson(), "pond").table


@pytest.fixture(scope="module")
def made(table: Table) -> Fit:
    return fit(table, ORDER, LIMITS)


@pytest.fixture
def process() -> Iterator[FitProcess]:
    process = FitProcess(LIMITS)
    yield process
    process.close()


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has asked about yet counts."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_what_comes_back_is_a_classifier_with_its_card(made: Fit) -> None:
    classifier = Classifier.of_bytes(made.file, "frogs")
    assert classifier.self_test() < 1e-4
    assert classifier.card == made.card
    assert made.card.labels == ["a", "b", "c"]
    assert made.sentences[0].startswith("It is right about")


def test_the_answer_is_the_same_in_any_process(table: Table, made: Fit) -> None:
    from models.classifiers.taught import teach

    assert teach(table, ORDER).file == made.file


@pytest.mark.parametrize("after_s", [0.0, 0.2])
def test_a_fit_that_is_killed_is_told_of_and_leaves_nothing(
    process: FitProcess, table: Table, after_s: float
) -> None:
    time.sleep(after_s)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(FitFailed, match="ended without an answer"):
        process.fit(table, ORDER)
    assert is_gone(process.pid)


def test_a_fit_that_takes_too_long_is_ended(table: Table) -> None:
    with pytest.raises(FitTooLong, match=r"longer than 0.05 s.*fewer"):
        fit(table, ORDER, FitLimits(timeout_s=0.05))


def test_a_fit_that_nobody_waits_for_is_ended(table: Table) -> None:
    async def give_up() -> list[int]:
        fits = Fits(LIMITS)
        work = asyncio.create_task(fits.run(table, ORDER))
        while not fits.pids:
            await asyncio.sleep(0.001)
        pids = fits.pids
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not fits.pids
        return pids

    (pid,) = asyncio.run(give_up())
    assert is_gone(pid)


def test_what_asks_all_processes_to_end_ends_no_fit(table: Table) -> None:
    """As systemd does: the service finishes what it has in hand."""
    process = FitProcess(LIMITS)
    status = Path(f"/proc/{process.pid}/status")
    until(lambda: ignores(status.read_text(), signal.SIGTERM))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(process.pid, number)
    assert process.fit(table, ORDER).file
    process.close()


def ignores(status: str, number: int) -> bool:
    (ignored,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored, 16) >> (number - 1) & 1)


def test_fits_end_when_the_service_does(table: Table) -> None:
    async def close() -> list[int]:
        fits = Fits(LIMITS)
        work = asyncio.create_task(fits.run(table, ORDER))
        while not fits.pids:
            await asyncio.sleep(0.001)
        pids = fits.pids
        fits.close()
        with pytest.raises(FitFailed, match="the service stops"):
            await work
        return pids

    (pid,) = asyncio.run(close())
    assert is_gone(pid)


def test_a_fit_ends_with_whoever_asked_for_it(table: Table) -> None:
    """The asker is killed in the middle, and closes nothing by itself."""
    program = (
        "import sys, time\n"
        "from service.collections.fitting import FitLimits, FitProcess\n"
        "process = FitProcess(FitLimits(300))\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    asker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    pid = int(asker.stdout.readline())
    asker.kill()
    asker.wait()
    asker.stdout.close()
    until(lambda: is_gone(pid), 60)


def test_a_process_that_learns_ends_where_stdin_is_closed(table: Table) -> None:
    pieces = packed(table, ORDER)
    command = [sys.executable, "-m", PROCESS, json.dumps({"cpu_s": 60})]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(HEAD.pack(sum(map(len, pieces))) + b"".join(pieces))
        process.stdin.close()
        answer = process.stdout.read()
    assert process.returncode in (0, 1)
    assert not answer or unframed(answer[HEAD.size :])[1]  # whole, or none at all


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        ({"refused": "too few"}, FitRefused, "^Too few.$"),
        ({"missing": "sklearn is not installed"}, FitUnavailable, "sklearn is not installed"),
        ({"memory": True}, FitFailed, "more than 2048 MiB"),
        ({"errno": errno.EAGAIN}, BlockingIOError, os.strerror(errno.EAGAIN)),
    ],
)
def test_what_the_process_cannot_do_comes_back_in_words(
    header: dict, error: type[Exception], message: str
) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(error, match=message):
        _read(HEAD.pack(len(text)) + text, 1.0, LIMITS)


def test_a_process_without_room_for_its_files_says_so(table: Table, process: FitProcess) -> None:
    last = Path(f"/proc/{process.pid}/fd/3")  # that it opens before it reads

    def is_open() -> bool:
        try:
            return str(last.readlink()).startswith("pipe:")
        except OSError:  # not yet, or another file that is closed again
            return False

    until(is_open, 60)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (4, 4))
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        process.fit(table, ORDER)


def test_a_process_without_room_for_a_thread_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_room)
    header, _ = unframed(b"".join(_answer_with_room(b"")))
    assert header == {"errno": errno.EAGAIN}


def test_a_process_that_cannot_be_started_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(FitUnavailable, match="the log says why"), capture_logs() as logs:
        FitProcess(FitLimits())
    assert [line["event"] for line in logs] == ["fit not started"]
    assert "/nowhere/python" in logs[0]["reason"]


def test_a_table_that_cannot_be_learnt_is_refused_by_the_process(table: Table) -> None:
    from dataclasses import replace

    few = replace(
        table,
        vectors=table.vectors[:6],
        holds=table.holds[:6],
        known=table.known[:6],
        groups=table.groups[:6],
        seconds=table.seconds[:6],
    )
    with pytest.raises(FitRefused, match="at least 5 are needed"):
        fit(few, ORDER, LIMITS)
