"""A fit in a process of its own, seen from whoever asks: started, fed, timed, killed.

Nothing is written on the way: table and file cross by pipes, and a process that dies at any moment
leaves nothing behind. It ends by itself where this one is gone.
"""

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import structlog

from models.classifier import ClassifierCard
from models.classifiers.table import HEAD, Order, Table, packed, unframed
from service.children import spawn
from service.exceptions import Reason, ServiceError
from service.threads import to_the_end

PROCESS = "models.classifiers.process"
NICENESS = 5  # requests with audio go first
MAX_NOTES = 4_096  # bytes of what the libraries say
WAIT_S = 5.0  # for a process that has answered or was killed to end
FREE_S = 10.0  # of CPU time beyond the limit in seconds, for several threads

log = structlog.get_logger()


class FitError(ServiceError):
    """There is no classifier; the message says why, and is fit to show."""

    kind: Reason = "fit-failed"

    def __init__(self, message: str, *, limit: float | None = None) -> None:
        unit = None if limit is None else "s"
        super().__init__(self.kind, message, limit=limit, unit=unit)


class FitRefused(FitError):
    """The table cannot be learnt from."""

    kind = "nothing-to-learn"


class FitFailed(FitError):
    """The process gave no answer."""


class FitUnavailable(FitError):
    """The process cannot start here, or cannot work for lack of a library."""

    kind = "teaching-unavailable"


class FitTooLong(FitError):
    """The process was ended because its time was up."""

    kind = "deadline"


@dataclass(frozen=True)
class FitLimits:
    """What a fit may take."""

    timeout_s: float = 45.0
    memory_bytes: int = 2 << 30


@dataclass(frozen=True)
class Fit:
    """A classifier: file, card, what held-out windows say in words, and how long it took."""

    file: bytes
    card: ClassifierCard
    sentences: tuple[str, ...]
    seconds: float


class Fits:
    """Fits for the service; all that run end when it closes."""

    def __init__(self, limits: FitLimits) -> None:
        self.limits = limits
        self._running: set[FitProcess] = set()

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes that learn now."""
        return [process.pid for process in self._running]

    async def run(self, table: Table, order: Order) -> Fit:
        """Learn; cancelled, the process is killed.

        Raises:
            FitRefused: the table cannot be learnt from.
            FitError: the process took too much or died.
            OSError, RuntimeError: there is no room for a process, its threads or its files.
        """
        with self._process() as process:
            asked = asyncio.to_thread(process.fit, table, order)
            return await to_the_end(asyncio.ensure_future(asked), process.kill)

    def close(self) -> None:
        """Kill what runs."""
        for process in list(self._running):
            process.kill()

    @contextmanager
    def _process(self) -> Iterator["FitProcess"]:
        process = FitProcess(self.limits)
        self._running.add(process)
        try:
            yield process
        finally:
            self._running.discard(process)
            process.close()


class FitProcess:
    """One process for one fit.

    Raises:
        FitUnavailable: none can be started.
        OSError: there is no room for one.
    """

    def __init__(self, limits: FitLimits) -> None:
        self.limits = limits
        granted = {
            "cpu_s": limits.timeout_s + FREE_S,
            "memory_bytes": limits.memory_bytes,
        }
        try:
            self._process = spawn(
                PROCESS,
                json.dumps(granted),
                environment=_commit(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except (FileNotFoundError, PermissionError) as error:  # Python was moved, or replaced
            log.error("fit not started", reason=str(error))
            raise FitUnavailable(
                "Nothing can be learnt here: no process can be started, the log says why."
            ) from None
        self._is_late = False
        self._is_killed = False
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        with suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, self.pid, NICENESS)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def fit(self, table: Table, order: Order) -> Fit:
        """Learn; blocks until there is an answer, or the time is up.

        Raises:
            FitRefused: the table cannot be learnt from.
            FitError: the process took too much or died.
            OSError, RuntimeError: there is no room for a thread, here or there.
        """
        started = monotonic()
        timer = threading.Timer(self.limits.timeout_s, self._expire)
        timer.start()
        try:
            answer = self._ask(packed(table, order))
        except (BrokenPipeError, EOFError) as error:
            raise self._failure() from error
        finally:
            timer.cancel()
        return _read(answer, monotonic() - started, self.limits)

    def kill(self) -> None:
        """End the process, because nobody waits for it."""
        self._is_killed = True
        self._process.kill()

    def close(self) -> None:
        """End the process, whatever it is doing, and let go of its pipes."""
        self._process.kill()
        try:
            self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            log.error("fit does not end", pid=self.pid)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _expire(self) -> None:
        self._is_late = True
        self._process.kill()

    def _ask(self, pieces: list[bytes]) -> bytes:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(HEAD.pack(sum(map(len, pieces))))
        for piece in pieces:
            requests.write(piece)
        requests.flush()
        head = answers.read(HEAD.size)
        if len(head) < HEAD.size:
            raise EOFError
        (length,) = HEAD.unpack(head)
        answer = answers.read(length)
        if len(answer) < length:
            raise EOFError
        return answer

    def _failure(self) -> FitError:
        """Why there is no answer."""
        code = self._process.wait()
        limit_s = self.limits.timeout_s
        if self._is_late:
            return FitTooLong(
                f"The fit took longer than {limit_s:g} s and was ended; learn fewer labels, or "
                "from fewer windows.",
                limit=limit_s,
            )
        if self._is_killed:
            return FitFailed("The fit was ended: nobody waits for it, or the service stops.")
        assert self._process.stderr is not None
        notes = self._process.stderr.read(MAX_NOTES) or b""
        log.error("fit died", code=code, notes=notes.decode("utf-8", "replace"))
        return FitFailed(
            "The process that learns has ended without an answer: it was killed, or took more "
            f"than {self.limits.memory_bytes >> 20} MiB or {limit_s:g} s of a core. Nothing was "
            "changed; try again, or learn from fewer windows."
        )


def fit(table: Table, order: Order, limits: FitLimits | None = None) -> Fit:
    """Learn in a process of its own, for a command that waits.

    Raises:
        FitRefused: the table cannot be learnt from.
        FitError: the process took too much or died.
        OSError, RuntimeError: there is no room for a process, its threads or its files.
    """
    process = FitProcess(limits or FitLimits())
    try:
        return process.fit(table, order)
    finally:
        process.close()


def _commit() -> dict[str, str]:
    """The environment of the child: the commit that a classifier's card names, where it is set."""
    return {name: os.environ[name] for name in ("VIOLA_COMMIT",) if name in os.environ}


def _read(answer: bytes, seconds: float, limits: FitLimits) -> Fit:
    header, file = unframed(answer)
    if "refused" in header:
        raise FitRefused(_sentence(header["refused"]))
    if "missing" in header:
        raise FitUnavailable(f"Nothing can be learnt here: {header['missing']}.")
    if "errno" in header:
        raise OSError(header["errno"], os.strerror(header["errno"]))
    if "memory" in header:
        raise FitFailed(
            f"The fit takes more than {limits.memory_bytes >> 20} MiB: learn fewer labels, or from "
            "fewer windows."
        )
    card: dict[str, Any] = header["card"]
    return Fit(
        bytes(file), ClassifierCard.model_validate(card), tuple(header["sentences"]), seconds
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")
