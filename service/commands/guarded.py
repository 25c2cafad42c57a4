"""Files on a disk or behind a URL -> blocks of samples, decoded in a child process.

A file that crashes its decoder, hangs in it or asks for too much memory is a failure of that file,
and of nothing else. Letters: `S` samples at 16 kHz.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Event, Thread

import numpy as np
from numpy.typing import NDArray

from models.audio import Warn
from models.limits import AudioError, Limits
from models.selection import WHOLE, Selection
from service.audio.decode_child import ResourceLimits
from service.audio.decode_process import Cause, DecoderDied, DecoderProcess
from service.audio.forks import ForkServer
from service.commands.bulk import Given
from service.commands.fetching_ahead import Fetcher
from service.telemetry import logs

STALL_S = 60.0  # for which a decoder may give no block
LOOK_S = 1.0  # between two looks at that
# A recording of a day is decoded in minutes; what takes longer is made to
RESOURCES = ResourceLimits(cpu_s=3600.0, wall_s=STALL_S, memory_bytes=512 << 20)
_FAILED: dict[Cause, str] = {
    "timeout": f"its decoder gave nothing for {STALL_S:g} s; encode it again",
    "cpu": f"decoding it takes more than {RESOURCES.cpu_s:g} s of CPU time; cut it",
    "memory": f"decoding it takes more than {RESOURCES.memory_bytes} bytes of memory; cut it",
}


class NoDecoder(RuntimeError):
    """No child can be started, which is no fault of a file."""


class GuardedDecoder:
    """Decodes one file after the other; a child that ends is replaced.

    Args:
        stall_s: seconds for which a child may give nothing.
        digests: whether to take the SHA-256 of each file, for `digest`.
    """

    def __init__(self, stall_s: float = STALL_S, *, digests: bool = False) -> None:
        logs.to_stderr()
        self.stall_s = stall_s
        self._digests: dict[str, str] | None = {} if digests else None
        self._forks = ForkServer()
        self._process: DecoderProcess | None = None
        self._waiting: tuple[DecoderProcess, float] | None = None  # for a block, since when
        self._fetcher = Fetcher()
        self._closed = Event()
        Thread(target=self._watch, daemon=True, name="stalls").start()

    def blocks(
        self, source: Given, selection: Selection = WHOLE, warn: Warn = lambda sentence: None
    ) -> Iterator[NDArray[np.float32]]:
        """A file, or what is behind a URL, as blocks (S,); like `models.audio.stream`.

        Raises:
            AudioError: for anything that is wrong with the file, perhaps after some blocks.
            NoDecoder: this machine has no room for a child.
        """
        with self._fetcher.on_disk(str(source)) as path:
            if self._digests is not None and os.path.isfile(path):  # no pipe, which is read once
                self._digests[str(source)] = _sha256(path)
            process = self._next()
            stream = process.stream(path, selection)
            try:
                while (block := self._within(process, lambda: next(stream, None))) is not None:
                    yield block
                for sentence in process.warnings:
                    warn(sentence)
            except DecoderDied as death:
                reason = _FAILED.get(death.cause, "its decoder crashes; encode it again")
                raise AudioError("corrupt", reason) from None
            finally:
                stream.close()

    def expect(self, sources: Iterable[str]) -> None:
        """Say which files are asked for next, so that those behind URLs are fetched ahead."""
        self._fetcher.expect(sources)

    def digest(self, source: str) -> str | None:
        """The SHA-256 of a file that was decoded, once; None where it could not be read."""
        return (self._digests or {}).pop(source, None)

    def close(self) -> None:
        """End the child, and the process that it comes from."""
        self._closed.set()
        self._end_child()
        self._forks.close()
        self._fetcher.close()

    def _end_child(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _next(self) -> DecoderProcess:
        """The child, or another one where it has ended, grown, or stopped in the middle."""
        if self._process is not None and not self._process.is_usable:
            self._end_child()
        if self._process is None:
            try:
                self._forks.wait(self.stall_s)
                self._process = DecoderProcess(self._forks, Limits(), RESOURCES)
            except OSError as error:
                reason = error.strerror or str(error)
                raise NoDecoder(f"no decoder can be started on this machine: {reason}") from error
        return self._process

    def _within(
        self, process: DecoderProcess, call: Callable[[], NDArray[np.float32] | None]
    ) -> NDArray[np.float32] | None:
        """What `call` returns; the watching thread kills the child if that takes `stall_s`."""
        self._waiting = process, time.monotonic()
        try:
            return call()
        finally:
            self._waiting = None

    def _watch(self) -> None:
        """Kill a child that stalls: one thread looks now and then, instead of a timer a block."""
        while not self._closed.wait(min(LOOK_S, self.stall_s / 4)):
            waiting = self._waiting
            if waiting is not None and time.monotonic() - waiting[1] > self.stall_s:
                waiting[0].expire()


def _sha256(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioError("unreadable", error.strerror or str(error)) from error
