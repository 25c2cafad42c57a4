"""Lines of the log -> a file descriptor, behind which somebody may have stopped to read."""

import os
import select
from contextlib import suppress
from io import UnsupportedOperation
from typing import Protocol, TextIO

import structlog

WAIT_S = 1.0  # once, for a reader that comes to it soon
PIECE_BYTES = 4096  # what a pipe that can be written takes without waiting (PIPE_BUF)

log = structlog.get_logger()


class Writable(Protocol):
    """What a handler of the log writes to."""

    def write(self, text: str, /) -> object:
        """Write a line."""


class LogStream:
    """A stream that waits for nobody: a process that hangs on its log answers no request.

    Where nothing can be written, as to a pipe or a disk that is full, lines are dropped until there
    is room again; then the log says how many.
    """

    def __init__(self, number: int) -> None:
        self._number, self._n_dropped, self._is_cut = number, 0, False
        self._poll = select.poll()
        self._poll.register(number, select.POLLOUT)

    def write(self, text: str) -> None:
        """Write a line, or drop it."""
        if self._n_dropped and self._has_room(0):
            n, self._n_dropped = self._n_dropped, 0
            log.error("lines of the log were dropped", lines=n)
        if not self._written(text.encode(errors="backslashreplace")):
            self._n_dropped += 1

    def _written(self, line: bytes) -> bool:
        if self._is_cut:
            line = b"\n" + line
        wait_s = 0 if self._n_dropped else WAIT_S
        with suppress(OSError):  # a full disk, or a reader that has gone
            while line and self._has_room(wait_s):
                n = os.write(self._number, line[:PIECE_BYTES])
                line, self._is_cut = line[n:], n < len(line)
        return not line

    def _has_room(self, wait_s: float) -> bool:
        return bool(self._poll.poll(1000 * wait_s))


def stream_of(file: TextIO) -> Writable:
    """The stream behind a file; the file itself, if there is no descriptor behind it."""
    try:
        return LogStream(file.fileno())
    except UnsupportedOperation:
        return file
