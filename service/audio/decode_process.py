"""Asks and kills a child process that decodes."""

import json
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE
from models.limits import AudioError, Limits
from models.selection import WHOLE, Selection
from service.audio.decode_child import (
    BEGIN,
    BLOCK,
    DONE,
    FILE,
    HEAD,
    NO_MEMORY,
    OPEN,
    SELECT,
    ResourceLimits,
    arguments,
    receive,
)
from service.audio.forks import MAX_NOTES, ForkServer

RECYCLE_BYTES = 64 << 20  # resident memory after a file, beyond which the process is replaced
END_S = 1.0  # for the server to tell how a process has ended, which takes ms

Cause = Literal["timeout", "cpu", "memory", "left", "signal", "exit"]


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
    """One child, which one thread at a time may ask; `recording` is an open file for it to stream.

    Raises:
        OSError: there is no room for another process.
    """

    def __init__(
        self,
        forks: ForkServer,
        limits: Limits,
        resources: ResourceLimits,
        recording: int | None = None,
    ) -> None:
        self.notes = b""
        self.n_samples = 0  # of the last file, as far as they have come
        self.ended: Cause | None = None  # why this side has ended it
        self._grown = False
        self._is_asked = False  # and has not answered whole
        self._facts: dict[str, Any] = {}  # what came with the last answer besides samples
        self._child = forks.fork(recording)
        with suppress(BrokenPipeError):  # it has ended already, which is noticed later
            self._send(BEGIN, arguments(limits, resources))

    @property
    def is_usable(self) -> bool:
        """Whether it can take another file: it runs, is idle, and has not grown too much."""
        return self._child.poll() is None and not self._grown and not self._is_asked

    @property
    def was_killed(self) -> bool:
        """Whether it got SIGKILL from outside this service, say from the kernel's OOM killer."""
        return self.ended is None and self._child.poll() == -signal.SIGKILL

    @property
    def decoded_s(self) -> float:
        """Seconds of audio that it has decoded of the last file."""
        return self.n_samples / SAMPLE_RATE

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._child.pid

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
        self, path: str | None, selection: Selection = WHOLE
    ) -> Generator[NDArray[np.float32], None, None]:
        """A file of any length -> its blocks (S,), each decoded when it is asked for.

        It is the file at `path`; None: the process's `recording`. Nothing limits the time but
        `expire`; raises as `decode`. To be closed before the process.
        """
        try:
            yield from self._ask(OPEN, (path or "").encode(), selection)
        except (EOFError, BrokenPipeError) as error:
            raise DecoderDied(self._cause()) from error
        finally:
            self.notes = self._read_notes()

    def expire(self, cause: Cause = "timeout") -> None:
        """End the process, because its time is up or nobody waits for it."""
        self.ended = self.ended or cause
        self._child.kill()

    def close(self) -> None:
        """End the process, whatever it is doing; no thread asks it any more."""
        self._child.close()

    def _ask(
        self, kind: bytes, content: bytes | bytearray | memoryview, selection: Selection
    ) -> Iterator[NDArray[np.float32]]:
        self.n_samples, self._is_asked = 0, True
        if selection != WHOLE:
            self._send(SELECT, json.dumps(asdict(selection)).encode())
        self._send(kind, content)
        while True:
            kind, content = receive(self._child.stdout)
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

    def _send(self, kind: bytes, content: bytes | bytearray | memoryview) -> None:
        requests = self._child.stdin
        requests.write(HEAD.pack(kind, len(content)))
        requests.write(content)
        requests.flush()

    def _cause(self) -> Cause:
        code = self._child.wait(END_S)
        if self.ended:
            return self.ended
        if code == -signal.SIGXCPU:
            return "cpu"
        return "signal" if code is None or code < 0 else "exit"

    def _read_notes(self) -> bytes:
        return self._child.stderr.read(MAX_NOTES) or b""
