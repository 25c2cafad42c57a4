"""Starts, asks and kills a child process that decodes."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE, WHOLE, AudioError, Limits, Selection
from service.audio.decode_child import (
    BLOCK,
    DONE,
    FILE,
    HEAD,
    NICENESS,
    NO_MEMORY,
    OPEN,
    SELECT,
    ResourceLimits,
    arguments,
    receive,
)
from service.children import child_environment

RECYCLE_BYTES = 64 << 20  # resident memory after a file, beyond which the process is replaced
FILE_MEMORY_BYTES = 64 << 20  # that decoding any file may take, and three times its own size
MAX_NOTES = 4_096  # bytes of what the libraries say about a file
CLOSE_S = 5.0  # for a process that was killed to end

Cause = Literal["timeout", "cpu", "memory", "left", "signal", "exit"]

log = structlog.get_logger()


class DecoderDied(Exception):
    """The process ended, or was ended, before it had answered."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause: Cause = cause


@dataclass(frozen=True)
class Answer:
    """Mono samples at 16 kHz (S,), none if only headers were asked for, and facts on the file."""

    samples: NDArray[np.float32]
    facts: dict[str, Any]


class DecoderProcess:
    """One child; a thread at a time may ask it. It inherits the open file `fd`, if there is one."""

    def __init__(self, limits: Limits, resources: ResourceLimits, fd: int | None = None) -> None:
        self.resources = resources
        self.notes = b""
        self.has_answered = False  # ever, so that it is known to have started
        self.n_samples = 0  # of the last file, as far as they have come
        self.ended: Cause | None = None  # why this side has ended it
        self._grown = False
        self._is_asked = False  # and has not answered whole
        self._facts: dict[str, Any] = {}  # what came with the last answer besides samples
        self._process = subprocess.Popen(
            [sys.executable, "-m", "service.audio.decode_child", arguments(limits, resources)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
            pass_fds=() if fd is None else (fd,),
            start_new_session=True,  # Ctrl-C is the service's to answer
        )
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        with suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, self.pid, NICENESS)  # before it loads its libraries

    @property
    def is_usable(self) -> bool:
        """Whether it can take another file: it runs, is idle, and has not grown too much."""
        return self._process.poll() is None and not self._grown and not self._is_asked

    @property
    def was_killed(self) -> bool:
        """Whether it got SIGKILL from outside this service, say from the kernel's OOM killer."""
        return self.ended is None and self._process.poll() == -signal.SIGKILL

    @property
    def decoded_s(self) -> float:
        """Seconds of audio that it has given for the last file."""
        return self.n_samples / SAMPLE_RATE

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def warnings(self) -> list[str]:
        """What was noticed about the last file."""
        return list(self._facts.get("warnings", []))

    def decode(
        self,
        data: bytes | bytearray | memoryview,
        asked: bytes = FILE,
        selection: Selection = WHOLE,
        take: Callable[[int], None] = lambda n_bytes: None,
    ) -> Answer:
        """Decode a file, or read its headers. It takes as long as it takes; `expire` ends it.

        Args:
            data: the file.
            asked: what of it.
            selection: which part of it.
            take: is told of the bytes of each block of samples before they are kept.

        Raises:
            AudioError: for anything that is wrong with the file.
            DecoderDied: the process crashed, was ended, or took more than it may.
        """
        self._limit_memory(len(data))
        samples = bytearray()  # grows where it is, so that nothing is there twice
        try:
            for block in self._ask(asked, data, selection):
                take(block.nbytes)
                samples += block.data.cast("B")
            return Answer(np.frombuffer(samples, "<f4"), self._facts)
        except (EOFError, BrokenPipeError) as error:
            raise DecoderDied(self._cause()) from error
        finally:
            self.notes = self._read_notes()

    def stream(
        self, path: str, selection: Selection = WHOLE
    ) -> Generator[NDArray[np.float32], None, None]:
        """A file of any length -> its blocks (S,), each decoded when it is asked for.

        Nothing limits the time but `expire`; raises as `decode`. To be closed before the process.
        """
        try:
            yield from self._ask(OPEN, path.encode(), selection)
        except (EOFError, BrokenPipeError) as error:
            raise DecoderDied(self._cause()) from error
        finally:
            self.notes = self._read_notes()

    def expire(self, cause: Cause = "timeout") -> None:
        """End the process, because its time is up or nobody waits for it."""
        self.ended = self.ended or cause
        self._process.kill()

    def close(self) -> None:
        """End the process, whatever it is doing; no thread asks it any more."""
        self._process.kill()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:  # the kernel is at it, say on a disk that hangs
            log.error("decoder does not end", pid=self.pid)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def _limit_memory(self, n_bytes: int) -> None:
        """Let a small file take little more memory than the process has now.

        Before its first answer the limit that it was started with counts.
        """
        if not self._facts or not hasattr(resource, "prlimit"):
            return
        allowed = min(self.resources.memory_bytes, FILE_MEMORY_BYTES + 3 * n_bytes)
        with suppress(OSError, ValueError):  # it has ended, which is noticed later
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            sizes = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmData")]
            if not sizes:  # of a process that has ended there is the name alone
                return
            held = sizes[0]
            hard = resource.prlimit(self.pid, resource.RLIMIT_DATA)[1]
            soft = held + allowed if hard == resource.RLIM_INFINITY else min(held + allowed, hard)
            resource.prlimit(self.pid, resource.RLIMIT_DATA, (soft, hard))

    def _ask(
        self, kind: bytes, content: bytes | bytearray | memoryview, selection: Selection
    ) -> Iterator[NDArray[np.float32]]:
        self.n_samples, self._is_asked = 0, True
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        if selection != WHOLE:
            selected = json.dumps(asdict(selection)).encode()
            requests.write(HEAD.pack(SELECT, len(selected)) + selected)
        requests.write(HEAD.pack(kind, len(content)))
        requests.write(content)
        requests.flush()
        while True:
            kind, content = receive(answers)  # type: ignore[arg-type]
            self.has_answered = True
            if kind == BLOCK:
                block = np.frombuffer(content, "<f4")
                self.n_samples += len(block)
                yield block
                continue
            self._is_asked = False
            if kind == DONE:
                self._facts = json.loads(content)
                self._grown = self._facts["resident_bytes"] > RECYCLE_BYTES
                return
            elif kind == NO_MEMORY:
                self._grown = True
                raise DecoderDied("memory")
            else:
                raise AudioError(**json.loads(content))

    def _cause(self) -> Cause:
        code = self._process.wait()
        if self.ended:
            return self.ended
        if code == -signal.SIGXCPU:
            return "cpu"
        return "signal" if code < 0 else "exit"

    def _read_notes(self) -> bytes:
        assert self._process.stderr is not None
        return (self._process.stderr.read(MAX_NOTES) or b"") if self._process.stderr else b""
