"""A log that nobody reads."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.telemetry import log_stream
from service.telemetry.log_stream import LogStream

# As many lines as no pipe holds, and an end that waits for no thread
MANY_LINES = """
import os, structlog
from service.telemetry import logs

logs.configure("info")
for n in range(1000):
    structlog.get_logger().info("line", n=n, filling=200 * "x")
os._exit(7)
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_process_goes_on_whose_log_nobody_reads(pipe: tuple[int, int]) -> None:
    command = [sys.executable, "-c", MANY_LINES]
    assert subprocess.run(command, stderr=pipe[1], timeout=60).returncode == 7


def test_lines_that_found_no_room_are_counted_and_none_is_cut(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(log_stream, "WAIT_S", 0.0)
    monkeypatch.setattr(log_stream.log, "error", lambda event, lines: told.append(lines))
    stream = LogStream(pipe[1])
    lines = [json.dumps({"n": n, "filling": 10_000 * "x"}) + "\n" for n in range(50)]
    for line in lines:
        stream.write(line)
    content = os.read(pipe[0], 1 << 20)
    stream.write("last\n")
    *whole, cut = content.decode().splitlines(keepends=True)
    assert whole == lines[: len(whole)]
    assert lines[len(whole)].startswith(cut)
    assert told == [len(lines) - len(whole)]
    assert os.read(pipe[0], 1 << 20) == b"\nlast\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = LogStream(writing)
    for _ in range(3):
        stream.write("line\n")
    os.close(writing)


def test_a_disk_that_is_full_is_no_error() -> None:
    with open("/dev/full", "w") as full:
        LogStream(full.fileno()).write("line\n")
