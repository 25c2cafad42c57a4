"""A pool of child processes that decode files; one that crashes or hangs is replaced."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic

import numpy as np
import structlog
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE, Header
from models.limits import AudioError, Limits
from models.quality import Quality
from models.selection import WHOLE, Selection
from service.audio.decode_child import FILE, HEADERS, MEASURED, ResourceLimits
from service.audio.decode_clock import DecodeClock
from service.audio.decode_process import Answer, Cause, DecoderDied, DecoderProcess
from service.audio.files import File
from service.audio.forks import ForkServer
from service.exceptions import ServiceError
from service.threads import no_stop_iteration, started, to_the_end
from service.traffic.budget import LEFT, Costs, Share, free
from service.untrusted import printable

LARGE_BYTES = 4 << 20  # a file that may keep a process busy for long
WORK_BYTES = 12 << 20  # what decoding takes beside the file itself
SECOND_BYTES = 4 * SAMPLE_RATE  # of samples
SAMPLES_BYTES = 64  # of samples for each byte of a file of 8 kbit a second
WAIT_S = 5.0  # that a file waits for a process
LOOK_S = 0.5  # between two looks at the idle processes
FORKS_S = 0.02  # between two looks whether a process can be started
CLOSE_S = 5.0  # for the threads to end once their processes were killed
LEAVE_S = 1.0  # that decoding may go on once nobody waits for the file
MAX_CRASHES = 2  # before a file is given up
MAX_KILLS = 5  # by somebody else, which is no fault of the file
PAUSES_S = (0.1, 10.0)  # after the first failed start, and the longest; each is twice the last

log = structlog.get_logger()


@dataclass(frozen=True)
class Decoded:
    """Mono samples at 16 kHz (S,), what was noticed on the way, and the quality if asked for."""

    samples: NDArray[np.float32]
    warnings: list[str]
    quality: Quality | None = None


@dataclass(frozen=True)
class _Job:
    """A file, what is asked of it, and the bytes for samples that its request has taken for it."""

    data: File
    asked: bytes
    selection: Selection
    ahead: int


class Decoder:
    """A pool of processes that decode uploads; the requests in hand bound how many files wait.

    Large files leave one process to the others. A process that crashes, hangs or grows is replaced;
    where no process can be started it is tried again, less and less often. A file whose process
    died is tried once more, and again where somebody has killed it. All but the decoding itself
    happens on the event loop.

    Args:
        limits: what files may be.
        workers: how many are decoded at the same time.
        resources: what decoding one may take.
        spares: processes beside these, that take the place of one that has died.

    Attributes:
        forks: where its processes come from.
        restarts: how many of them were replaced, by cause.
    """

    def __init__(
        self,
        limits: Limits,
        workers: int,
        resources: ResourceLimits = ResourceLimits(),
        *,
        spares: int = 0,
    ) -> None:
        self.limits, self.resources = limits, resources
        self.forks = ForkServer()
        self.restarts: Counter[str] = Counter()
        self._large = asyncio.Semaphore(max(1, workers - 1))
        self._places = asyncio.Semaphore(workers)
        self._threads = started(ThreadPoolExecutor(workers, thread_name_prefix="decode"), workers)
        self._idle: deque[DecoderProcess] = deque()  # the longest idle first
        self._all: set[DecoderProcess] = set()
        self._wanted = workers + spares
        self._pause_s, self._not_before = 0.0, 0.0
        self._waiting: list[asyncio.Future[None]] = []
        self._asked: dict[Future[Answer], DecodeClock] = {}
        self._mend()

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes."""
        return [process.pid for process in self._all]

    async def start(self) -> None:
        """Wait until all processes are there, but no longer than a file would."""
        deadline = monotonic() + WAIT_S
        self._mend()
        while len(self._all) < self._wanted and monotonic() < deadline:
            await asyncio.sleep(FORKS_S)
            self._mend()

    async def read(
        self,
        data: File,
        costs: Costs | None = None,
        selection: Selection = WHOLE,
        *,
        measured: bool = False,
    ) -> Decoded:
        """The bytes of an audio file -> mono samples at 16 kHz, perhaps with their quality.

        Raises:
            AudioError: for anything that is wrong with the file.
            ServiceError: the file crashes a decoder or takes more than one may take, or no decoder
                can be started.
        """
        asked = MEASURED if measured else FILE
        answer = await self._ask(data, asked, selection, costs or free())
        found = answer.facts["quality"]
        quality = Quality(**found) if found is not None else None
        return Decoded(answer.samples, answer.facts["warnings"], quality)

    async def read_header(
        self, data: File, costs: Costs | None = None, selection: Selection = WHOLE
    ) -> Header:
        """What a file claims to be, without decoding its stream; raises as `read` does."""
        header = (await self._ask(data, HEADERS, selection, costs or free())).facts["header"]
        return Header(**header | {"error": header["error"] and AudioError(**header["error"])})

    async def tend(self) -> None:
        """Keep replacing processes that died while idle; runs as a task until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._mend()

    def close(self) -> None:
        """End the processes, whatever they are doing: by now nobody waits for them."""
        self._wanted = 0
        for process in self._all:
            process.expire("left")
        asked = dict(self._asked)
        for clock in asked.values():
            clock.leave()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if stuck := wait(asked, CLOSE_S).not_done:
            log.error("threads of decoders do not end", count=len(stuck))
        else:  # the pipes of threads cannot be closed under them
            for process in self._all:
                process.close()
        self.forks.close()

    async def _ask(self, data: File, asked: bytes, selection: Selection, costs: Costs) -> Answer:
        is_large = len(data) > LARGE_BYTES
        async with self._large if is_large else nullcontext(), self._places:
            work_bytes = WORK_BYTES + len(data)
            ahead = 0 if asked == HEADERS else self._ahead(len(data), costs.share)
            await costs.share.take(work_bytes + ahead)
            kept = 0
            try:
                answer = await self._decode(_Job(data, asked, selection, ahead), costs)
                kept = min(ahead, answer.samples.nbytes)
                return answer
            finally:
                costs.share.give(work_bytes + ahead - kept)

    def _ahead(self, n_bytes: int, share: Share) -> int:
        """Bytes to take for the samples of a file before it is decoded.

        Files that took them only as they are decoded would each hold a part, and wait for each
        other's. It is no more than uploads leave free, so that uploads cannot block it for ever.
        """
        duration_s = self.limits.max_duration_s
        most = SAMPLES_BYTES * n_bytes if duration_s is None else round(duration_s * SECOND_BYTES)
        total, work_bytes = share.budget.total, WORK_BYTES + n_bytes
        left = min(int(LEFT * total), total - share.held) - work_bytes
        return max(0, min(SAMPLES_BYTES * n_bytes, most, left))

    async def _decode(self, job: "_Job", costs: Costs) -> Answer:
        """Ask a process, and if it died another one; charge the audio that was decoded."""
        decoded_s = 0.0
        try:
            for n_tries in range(1, MAX_KILLS + 1):
                async with self._process() as process:
                    try:
                        return await self._once(process, job, costs)
                    except DecoderDied as death:
                        self._note(death.cause, process.notes)
                        most = MAX_KILLS if process.was_killed else MAX_CRASHES
                        if n_tries >= most or death.cause not in ("signal", "exit"):
                            raise death_error(death.cause, self.resources) from None
                    finally:
                        decoded_s = max(decoded_s, process.decoded_s)
            raise AssertionError("the last time either returns or raises")
        finally:
            costs.spend(decoded_s)

    async def _once(self, process: DecoderProcess, job: "_Job", costs: Costs) -> Answer:
        """Ask one process, within its time limit; a cancelled request gives it `LEAVE_S` more."""
        held = costs.share.held
        with DecodeClock(process, costs.share, self.resources.wall_s, job.ahead) as clock:
            asked = (job.data, job.asked, job.selection, clock.take)
            work = self._threads.submit(no_stop_iteration(process.decode), *asked)
            self._asked[work] = clock
            try:
                return await to_the_end(asyncio.wrap_future(work), clock.leave, LEAVE_S)
            except BaseException:
                costs.share.give(costs.share.held - held)
                raise
            finally:
                del self._asked[work]

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[DecoderProcess]:
        """A process for one file; replaced after it if need be.

        Raises:
            ServiceError: there is none, and none can be started.
        """
        process = await self._next()
        try:
            yield process
        finally:
            self._return(process)

    async def _next(self) -> DecoderProcess:
        deadline = monotonic() + WAIT_S
        while (process := self._take_idle()) is None:
            if monotonic() > deadline:
                raise no_decoder()
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await asyncio.wait([waiter], timeout=FORKS_S)
        return process

    def _take_idle(self) -> DecoderProcess | None:
        """A process that can take a file; where there is none, missing ones are started."""
        while self._idle:
            process = self._idle.popleft()
            if process.is_usable:
                return process
            self._lose(process)
            self._fill()
        self._fill()
        return self._idle.popleft() if self._idle else None

    def _return(self, process: DecoderProcess) -> None:
        if process.is_usable:
            self._offer(process)
        else:
            if process.ended == "left":
                self._note("left", b"nobody waits for its file")
            self._drop(process)
            self._mend()

    def _offer(self, process: DecoderProcess) -> None:
        self._idle.append(process)
        while self._waiting:
            waiter = self._waiting.pop()
            if not waiter.done():
                waiter.set_result(None)

    def _drop(self, process: DecoderProcess) -> None:
        self._all.discard(process)
        process.close()

    def _mend(self) -> None:
        """Replace processes that died while idle, which is no file's fault; start missing ones."""
        for process in [process for process in self._idle if not process.is_usable]:
            self._idle.remove(process)
            self._lose(process)
        self._fill()

    def _fill(self) -> None:
        """Start the processes that are missing."""
        while len(self._all) < self._wanted and monotonic() >= self._not_before and self._start():
            pass

    def _lose(self, process: DecoderProcess) -> None:
        """Drop a process that died while idle."""
        self._note("signal", b"it died while idle")
        self._drop(process)

    def _start(self) -> bool:
        """Start one more process, or put that off; tells whether it did."""
        try:
            if not self.forks.is_ready():
                return False
            process = DecoderProcess(self.forks, self.limits, self.resources)
        except (OSError, RuntimeError) as error:  # no more processes, file handles or memory
            first_s, longest_s = PAUSES_S
            self._pause_s = min(longest_s, max(first_s, 2 * self._pause_s))
            self._not_before = monotonic() + self._pause_s
            log.error("decoder not started", reason=str(error), again_in_s=self._pause_s)
            return False
        self._pause_s = 0.0
        self._all.add(process)
        self._offer(process)
        return True

    def _note(self, cause: Cause, notes: bytes) -> None:
        text = printable(notes.decode("utf-8", "replace"), 400)
        log.warning("decoder replaced", cause=cause, notes=text)
        self.restarts[cause] += 1


def no_decoder() -> ServiceError:
    """The error where no process can be started."""
    detail = f"No decoder could be started within {WAIT_S:g} s; the log says why."
    return ServiceError("decoder-unavailable", detail, limit=WAIT_S, unit="s", retry_after_s=5)


def death_error(cause: Cause, resources: ResourceLimits) -> ServiceError:
    """The error of a file whose decoder process has died."""
    match cause:
        case "cpu" | "timeout":
            limit = resources.cpu_s if cause == "cpu" else resources.wall_s
            what = "CPU time" if cause == "cpu" else "time"
            detail = f"Decoding the file takes more than {limit:g} s of {what}."
            return ServiceError("decode-timeout", detail, limit=limit, unit="s")
        case "memory":
            detail = f"Decoding the file takes more than {resources.memory_bytes} bytes of memory."
            return ServiceError(
                "decoded-too-large", detail, limit=resources.memory_bytes, unit="bytes"
            )
        case "left" | "signal" | "exit":
            return ServiceError("undecodable", "The decoder fails on this file.")
