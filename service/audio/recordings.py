"""Long recordings -> blocks of samples, each recording decoded by a child process of its own.

A child of the pool would be held for as long as the recording is embedded, and clips would wait.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import aclosing
from time import monotonic
from typing import BinaryIO

import structlog

from models.audio import Warn
from models.limits import Limits
from models.runtime import Floats
from models.selection import WHOLE, Selection
from service.audio.decode_child import ResourceLimits
from service.audio.decode_process import DecoderDied, DecoderProcess
from service.audio.decoder import WAIT_S, WORK_BYTES, death_error, no_decoder
from service.audio.forks import LOOK_S, UNSTARTED, ForkServer
from service.threads import started
from service.traffic.budget import Budget
from service.untrusted import printable

log = structlog.get_logger()


class Recordings:
    """Decodes files of any length as far as their blocks are asked for.

    `resources.wall_s` limits the time of each block, the other limits the recording as a whole.
    """

    def __init__(
        self,
        forks: ForkServer,
        limits: Limits,
        resources: ResourceLimits,
        max_at_once: int,
        budget: Budget,
    ) -> None:
        self.forks, self.limits, self.resources, self.budget = forks, limits, resources, budget
        threads = ThreadPoolExecutor(max_at_once, thread_name_prefix="recording")
        self._threads = started(threads, max_at_once)

    async def blocks(
        self, file: BinaryIO, selection: Selection = WHOLE, warn: Warn = lambda sentence: None
    ) -> AsyncGenerator[Floats, None]:
        """Blocks (S,) at 16 kHz of an open file; to be closed, which ends the child.

        `warn` is told at the end what was noticed about the file.

        Raises:
            AudioError: for anything that is wrong with the file, perhaps after some blocks.
            ServiceError: the file takes more than one may, memory is full, or no process can be
                started.
            OSError: there is no room for a process.
        """
        with self.budget.share() as share:
            await share.take(WORK_BYTES)
            async with aclosing(self._blocks(file, selection, warn)) as blocks:
                async for block in blocks:
                    yield block

    async def _blocks(
        self, file: BinaryIO, selection: Selection, warn: Warn
    ) -> AsyncGenerator[Floats, None]:
        process = await self._process(file)
        stream = process.stream(None, selection)
        try:
            while (block := await self._next(process, stream)) is not None:
                yield block
            for sentence in process.warnings:
                warn(sentence)
        except DecoderDied as death:
            notes = printable(process.notes.decode("utf-8", "replace"), 400)
            log.warning("decoder died", cause=death.cause, notes=notes)
            raise death_error(death.cause, self.resources) from None
        finally:
            stream.close()
            process.close()

    async def _process(self, file: BinaryIO) -> DecoderProcess:
        """A process for one recording, to be closed.

        Raises:
            ServiceError: none can be started.
            OSError: there is no room for one.
        """
        deadline, reason = monotonic() + WAIT_S, "the fork server is not ready"
        while monotonic() < deadline:
            try:
                if self.forks.is_ready():
                    # On the loop, for a few ms: if the client left meanwhile, a thread's child
                    # would be nobody's
                    return DecoderProcess(self.forks, self.limits, self.resources, file.fileno())
            except UNSTARTED as error:
                reason = str(error)
            await asyncio.sleep(LOOK_S)
        log.error("decoder not started", reason=reason)
        raise no_decoder()

    def close(self) -> None:
        """Let what runs finish."""
        self._threads.shutdown(wait=False)

    async def _next(self, process: DecoderProcess, stream: Iterator[Floats]) -> Floats | None:
        """Wait in a thread for the next block; a child that hangs is killed."""
        block = self._threads.submit(next, stream, None)
        done = asyncio.wrap_future(block)
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        try:
            await asyncio.wait([done], timeout=self.resources.wall_s)
        finally:
            if not (block.done() or block.cancel()):
                process.expire()
                wait([block])  # ms; awaiting would end at once where a request is cancelled again
        return block.result()
