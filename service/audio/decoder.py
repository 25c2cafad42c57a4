"""Bytes of a file -> samples, in child processes that may die, a bounded number at a time."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from queue import PriorityQueue

import numpy as np
import structlog
from numpy.typing import NDArray

from models.audio import WHOLE, AudioError, Header, Limits, Selection
from models.quality import Quality
from service.audio.decode_child import FILE, HEADERS, MEASURED, Guard
from service.audio.decode_process import Answer, Cause, DecoderDied, DecoderProcess
from service.problems import Problem
from service.untrusted import printable

LARGE_BYTES = 4 << 20  # a file that may keep a process busy for long

log = structlog.get_logger()


@dataclass(frozen=True)
class Decoded:
    """Mono samples at 16 kHz (S,), what was noticed on the way, and the quality if asked for."""

    samples: NDArray[np.float32]
    warnings: list[str]
    quality: Quality | None = None


class Decoder:
    """A pool of processes that decode uploads; what waits for one is bounded by the requests.

    Large files leave one process to the others. A process that crashes, hangs or grows is replaced.
    Where one died for no reason of its own (somebody killed it) the file is tried once more.

    Attributes:
        restarts: how many processes were replaced, by cause.
    """

    def __init__(self, limits: Limits, workers: int, guard: Guard = Guard()) -> None:
        self.limits, self.guard = limits, guard
        self.restarts: Counter[str] = Counter()
        self._large = asyncio.Semaphore(max(1, workers - 1))
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        # Those that have answered before those that may still be starting, then the longest idle
        self._idle: PriorityQueue[tuple[bool, int, DecoderProcess]] = PriorityQueue()
        self._numbers = count()
        self._all: set[DecoderProcess] = set()
        for _ in range(workers):
            self._start()

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes."""
        return [process.pid for process in self._all]

    async def read(
        self, data: bytes, selection: Selection = WHOLE, *, measured: bool = False
    ) -> Decoded:
        """The bytes of an audio file -> mono samples at 16 kHz, perhaps with their quality.

        Raises:
            AudioError: for anything that is wrong with the file.
            Problem: the file crashes a decoder, or takes more than one may take.
        """
        answer = await self._ask(data, MEASURED if measured else FILE, selection)
        found = answer.facts["quality"]
        quality = Quality(**found) if found is not None else None
        return Decoded(answer.samples, answer.facts["warnings"], quality)

    async def read_header(self, data: bytes, selection: Selection = WHOLE) -> Header:
        """What a file claims to be, without decoding its stream; raises as `read` does."""
        header = (await self._ask(data, HEADERS, selection)).facts["header"]
        return Header(**header | {"error": header["error"] and AudioError(**header["error"])})

    def close(self) -> None:
        """Let the running files finish and drop those that wait."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._all:
            process.close()

    async def _ask(self, data: bytes, asked: bytes, selection: Selection) -> Answer:
        loop = asyncio.get_running_loop()
        async with self._large if len(data) > LARGE_BYTES else nullcontext():
            return await loop.run_in_executor(self._threads, self._decode, data, asked, selection)

    def _decode(self, data: bytes, asked: bytes, selection: Selection) -> Answer:
        try:
            return self._decode_once(data, asked, selection)
        except DecoderDied as death:
            if death.cause in ("signal", "exit"):
                return self._decode_again(data, asked, selection)
            raise death_problem(death.cause, self.guard) from None

    def _decode_again(self, data: bytes, asked: bytes, selection: Selection) -> Answer:
        try:
            return self._decode_once(data, asked, selection)
        except DecoderDied as death:
            raise death_problem(death.cause, self.guard) from None

    def _decode_once(self, data: bytes, asked: bytes, selection: Selection) -> Answer:
        process = self._living()
        try:
            return process.decode(data, asked, selection)
        except DecoderDied as death:
            notes = printable(process.notes.decode("utf-8", "replace"), 400)
            log.warning("decoder replaced", cause=death.cause, notes=notes)
            self.restarts[death.cause] += 1
            raise
        finally:
            self._return(process)

    def _living(self) -> DecoderProcess:
        """A process to ask; those that died between two files are replaced, and no file's fault."""
        _, _, process = self._idle.get()
        while not process.is_usable:
            log.warning("decoder replaced", cause="signal", notes="it died while idle")
            self.restarts["signal"] += 1
            self._return(process)
            _, _, process = self._idle.get()
        return process

    def _return(self, process: DecoderProcess) -> None:
        if process.is_usable:
            self._idle.put((False, next(self._numbers), process))
            return
        self._all.discard(process)
        process.close()
        self._start()

    def _start(self) -> None:
        process = DecoderProcess(self.limits, self.guard)
        self._all.add(process)
        self._idle.put((True, next(self._numbers), process))


def death_problem(cause: Cause, guard: Guard) -> Problem:
    """What a file that ends its decoder is told."""
    match cause:
        case "cpu" | "timeout":
            limit = guard.cpu_s if cause == "cpu" else guard.wall_s
            what = "CPU time" if cause == "cpu" else "time"
            detail = f"Decoding the file takes more than {limit:g} s of {what}."
            return Problem("decode-timeout", detail, limit=limit, unit="s")
        case "memory":
            detail = f"Decoding the file takes more than {guard.memory_bytes} bytes of memory."
            return Problem("decoded-too-large", detail, limit=guard.memory_bytes, unit="bytes")
        case "signal" | "exit":
            return Problem("undecodable", "The decoder fails on this file.")
