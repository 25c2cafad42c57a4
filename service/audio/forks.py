"""Children that decode, forked from a process in which their libraries are loaded.

A fork takes some ms, also under load, and costs its neighbours nothing. A program started anew
would spend a third of a second of CPU time on loading libraries.
"""

import errno
import os
import select
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from threading import Lock
from time import monotonic, sleep
from typing import BinaryIO

import structlog

from service.audio.fork_server import REPORT
from service.children import spawn
from service.untrusted import printable

ANSWER_S = 2.0  # for a fork, which takes ms: beyond it the server hangs
LOOK_S = 0.02  # between two looks whether the server is ready
# The fork server has ended or hangs, or Python is gone; any other OSError means that there is no
# room for a process
UNSTARTED = (
    ChildProcessError,
    ConnectionError,
    FileNotFoundError,
    PermissionError,
    TimeoutError,
)
MAX_NOTES = 4_096  # bytes of what a process has written on its way out

log = structlog.get_logger()


class Fork:
    """A child and the pipes to it. Its parent, the fork server, reports how it ended.

    Attributes:
        pid: number of the process.
        stdin: what it reads.
        stdout: what it answers.
        stderr: what its libraries say; reading it never waits.
    """

    def __init__(self, pid: int, reports: int, pipes: tuple[BinaryIO, BinaryIO, BinaryIO]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self._reports, self._lock = reports, Lock()
        self._code: int | None = None
        self._is_orphan = False  # its server has ended before it

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, SIGKILL if nobody knows; None while it runs."""
        with self._lock:
            if self._code is None and self._reports >= 0 and _is_readable(self._reports, 0.0):
                code = os.read(self._reports, REPORT.size)
                self._is_orphan = not code
                self._code = REPORT.unpack(code)[0] if code else -signal.SIGKILL
            return self._code

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once there is one; None if there is none in time."""
        deadline = monotonic() + timeout_s
        while (code := self.poll()) is None and (left_s := deadline - monotonic()) > 0:
            _is_readable(self._reports, left_s)
        return code

    def kill(self) -> None:
        """End it, whatever it is doing."""
        if self.poll() is None or self._is_orphan:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and close the pipes to it; no thread uses them any more."""
        self.kill()
        if self._is_orphan:
            with suppress(ChildProcessError):  # it is our child only if we are init of a container
                os.waitpid(self.pid, 0)
        for pipe in (self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):
                pipe.close()
        with self._lock:
            reports, self._reports = self._reports, -1
            if reports >= 0:
                os.close(reports)


class ForkServer:
    """Starts the process that forks, and asks it; one that has ended is started again."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._is_ready = False
        with suppress(OSError):  # whoever asks for a child is told
            self._start()

    @property
    def pid(self) -> int | None:
        """Number of the process that forks; None where none runs."""
        return None if self._process is None else self._process.pid

    def is_ready(self) -> bool:
        """Whether a child can be forked now; if the process has ended another one is started.

        Raises:
            OSError: it cannot be started, or has ended before it was ready.
        """
        if self._process is not None and self._process.poll() is not None:
            self._note_end()
        if self._requests is None:
            self._start()
        assert self._requests is not None
        if not self._is_ready and _is_readable(self._requests.fileno(), 0.0):
            self._is_ready = self._requests.recv(1) == b"!"  # else it ends, which is noticed later
        return self._is_ready

    def wait(self, timeout_s: float) -> None:
        """Return once a child can be forked.

        Raises:
            OSError: it cannot.
        """
        deadline = monotonic() + timeout_s
        while not self.is_ready():
            if monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"no fork server within {timeout_s:g} s")
            sleep(LOOK_S)

    def fork(self, recording: int | None = None) -> Fork:
        """A child, which gets the open file `recording`, if there is one; it takes some ms.

        Raises:
            OSError: there is no room for another process or its pipes, or the server hangs.
        """
        if self._requests is None:
            raise ConnectionError(errno.ENOTCONN, "no fork server runs")
        with ExitStack() as theirs, ExitStack() as ours:

            def pipe() -> tuple[int, int]:
                read, write = os.pipe()
                return read, write

            stdin, to_child = pipe()
            theirs.callback(os.close, stdin)
            requests = ours.enter_context(os.fdopen(to_child, "wb"))
            from_child, stdout = pipe()
            theirs.callback(os.close, stdout)
            answers = ours.enter_context(os.fdopen(from_child, "rb"))
            said, stderr = pipe()
            theirs.callback(os.close, stderr)
            notes = ours.enter_context(os.fdopen(said, "rb"))
            reports, report = pipe()
            theirs.callback(os.close, report)
            ours.callback(os.close, reports)
            os.set_blocking(said, False)
            files = [stdin, stdout, stderr, report]
            files += [] if recording is None else [recording]
            socket.send_fds(self._requests, [b"?"], files)
            theirs.close()
            pid = self._pid(reports)
            ours.pop_all()
        return Fork(pid, reports, (requests, answers, notes))

    def close(self) -> None:
        """End the process; its children are ended by whoever has them."""
        if self._requests is not None:
            self._requests.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stderr is not None
            self._process.stderr.close()
        self._process, self._requests, self._is_ready = None, None, False

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = spawn(
                    "service.audio.fork_server", stdin=theirs.fileno(), stdout=subprocess.DEVNULL
                )
            except BaseException:
                ours.close()
                raise
        self._requests, self._is_ready = ours, False
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)

    def _note_end(self) -> None:
        """Log how the fork server has ended.

        Raises:
            ChildProcessError: it never was ready, and another one would not be either.
        """
        assert self._process is not None
        assert self._process.stderr is not None
        notes = (self._process.stderr.read(MAX_NOTES) or b"").decode("utf-8", "replace")
        code, was_ready = self._process.returncode, self._is_ready
        log.warning("fork server ended", code=code, notes=printable(notes, 400))
        self.close()
        if not was_ready:
            raise ChildProcessError(errno.ECHILD, f"the fork server ended with code {code}")

    def _pid(self, reports: int) -> int:
        """The process id of the child that was asked for."""
        if not _is_readable(reports, ANSWER_S):
            self.close()
            raise TimeoutError(errno.ETIMEDOUT, f"the fork server gave no child in {ANSWER_S:g} s")
        answer = os.read(reports, REPORT.size)
        if not answer:
            raise ConnectionError(
                errno.ECONNRESET, "the fork server has ended, or has no files left"
            )
        pid: int = REPORT.unpack(answer)[0]
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid


def _is_readable(fd: int, timeout_s: float) -> bool:
    """Whether there is something to read, or the end; numbers beyond 1,023 are fine."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
