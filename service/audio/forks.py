"""Children that decode, forked from a process in which their libraries are loaded.

A decoder that has to be replaced under load, or one for a recording of its own, is there in some
ms and costs its neighbours nothing; a program started anew would load libraries for a third of a
second of CPU time.
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

from service.audio.fork_server import TOLD
from service.children import spawn
from service.untrusted import printable

ANSWER_S = 2.0  # for a fork, which takes ms: beyond it the server hangs
LOOK_S = 0.02  # between two looks whether the server is ready
# A server that has ended or hangs, or a Python that is not there any more; what else an OSError
# tells is that there is no room
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
    """A child and the pipes to it. How it ended is told by the server, which is its parent.

    Attributes:
        pid: number of the process.
        stdin: what it reads.
        stdout: what it answers.
        stderr: what its libraries say; reading it never waits.
    """

    def __init__(self, pid: int, told: int, pipes: tuple[BinaryIO, BinaryIO, BinaryIO]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self._told, self._lock = told, Lock()
        self._code: int | None = None
        self._is_orphan = False  # its server has ended before it

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, SIGKILL if nobody knows; None while it runs."""
        with self._lock:
            if self._code is None and self._told >= 0 and _is_readable(self._told, 0.0):
                code = os.read(self._told, TOLD.size)
                self._is_orphan = not code
                self._code = TOLD.unpack(code)[0] if code else -signal.SIGKILL
            return self._code

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once there is one; None if there is none in time."""
        deadline = monotonic() + timeout_s
        while (code := self.poll()) is None and (left_s := deadline - monotonic()) > 0:
            _is_readable(self._told, left_s)
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
            with suppress(ChildProcessError):  # this process is the first of a container
                os.waitpid(self.pid, 0)
        for pipe in (self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):
                pipe.close()
        with self._lock:
            told, self._told = self._told, -1
            if told >= 0:
                os.close(told)


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
            self._mourn()
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
            told, tell = pipe()
            theirs.callback(os.close, tell)
            ours.callback(os.close, told)
            os.set_blocking(said, False)
            files = [stdin, stdout, stderr, tell]
            files += [] if recording is None else [recording]
            socket.send_fds(self._requests, [b"?"], files)
            theirs.close()
            pid = self._pid(told)
            ours.pop_all()
        return Fork(pid, told, (requests, answers, notes))

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

    def _mourn(self) -> None:
        """Note how the process has ended.

        Raises:
            ChildProcessError: it never was ready: another one would not be either.
        """
        assert self._process is not None
        assert self._process.stderr is not None
        notes = (self._process.stderr.read(MAX_NOTES) or b"").decode("utf-8", "replace")
        code, was_ready = self._process.returncode, self._is_ready
        log.warning("fork server ended", code=code, notes=printable(notes, 400))
        self.close()
        if not was_ready:
            raise ChildProcessError(errno.ECHILD, f"the fork server ended with code {code}")

    def _pid(self, told: int) -> int:
        """The number of the child that was asked for."""
        if not _is_readable(told, ANSWER_S):
            self.close()
            raise TimeoutError(errno.ETIMEDOUT, f"the fork server gave no child in {ANSWER_S:g} s")
        answer = os.read(told, TOLD.size)
        if not answer:
            raise ConnectionError(
                errno.ECONNRESET, "the fork server has ended, or has no files left"
            )
        pid: int = TOLD.unpack(answer)[0]
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid


def _is_readable(fd: int, timeout_s: float) -> bool:
    """Whether there is something to read, or the end; numbers beyond 1,023 are fine."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
