"""The queue of a single machine: localqueue, an SQLite file beside the store's, for any processes.

A step is leased: the worker renews the lease while it works, and after kill -9 it lapses.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypedDict, cast

import structlog
from localqueue import DeliveryPolicy, DurabilityMode, Empty, SimpleQueue
from localqueue.exceptions import LocalQueueError
from localqueue.job import Job
from sqlalchemy import Connection

from service.collections.folder import QUEUE
from service.collections.job_records import Step
from service.collections.records import StoreBusy, StoreUnavailable
from service.outage import Outage
from service.queues.queue import Again, Handle
from service.threads import in_thread

LINES: Mapping[Step, str] = {"run": "jobs", "tell": "tells"}  # their names in the file
POLL_S: Mapping[Step, float] = {"run": 0.25, "tell": 1.0}  # for what other processes have put
ERROR_S = 5.0  # after a failure that is none of a job's
ENDLESS = 2**31 - 2  # tries of a step: it is the job that says when to give up
KEPT_S = 60.0  # for which steps that were done stay in the file

log = structlog.get_logger()


class Message(TypedDict):
    """What is stored."""

    step: str
    job: str


class LocalQueue:
    """Steps in a folder.

    Args:
        folder: of the store.
        lapse_s: after a worker's last sign of life its step is given to another.

    Raises:
        StoreUnavailable: its file cannot be opened.
    """

    def __init__(self, folder: Path, lapse_s: float) -> None:
        self._folder, self._lapse_s = folder, lapse_s
        # If so, the clock was set back, and a step would be given when its time comes once more
        self._is_ahead = _written_at(folder / QUEUE) > time.time() + lapse_s
        try:
            self._lines: dict[Step, SimpleQueue[Message]] = {
                kind: SimpleQueue(
                    str(folder / QUEUE),
                    name,
                    delivery=DeliveryPolicy(lease_seconds=lapse_s, max_retries=ENDLESS),
                    durability=DurabilityMode.DURABLE,
                )
                for kind, name in LINES.items()
            }
        except UnicodeError:
            reason = f"the name of its folder, {str(folder)!r}, is not UTF-8: choose another"
            raise StoreUnavailable(f"The queue of jobs cannot be opened: {reason}.") from None
        except (LocalQueueError, OSError) as error:
            raise _not_opened(folder, error) from error

    def put(self, connection: Connection, step: Step, job: str) -> None:
        """Add a step at the end.

        The step is there before the store's transaction ends. A worker that takes it has to write
        to the store, and so waits for that end; if it fails there is no such job and nothing to do.
        """
        try:
            self._lines[step].put({"step": step, "job": job})
        except LocalQueueError as error:
            log.error("the queue takes nothing", reason=str(error))
            raise StoreBusy("The queue of jobs cannot take more now.") from error

    def is_lost(self) -> bool:
        """Whether the queue is empty, or the clock was set back to before it was last written."""
        try:
            stats = [line.stats() for line in self._lines.values()]
        except LocalQueueError as error:
            raise _not_opened(self._folder, error) from error
        return self._is_ahead or not any(one["ready"] or one["processing"] for one in stats)

    async def work(self, kind: Step, handle: Handle, n_at_once: int) -> None:
        """Do steps of a kind, so many at once, until cancelled."""
        places, line = asyncio.Semaphore(n_at_once), _Line(self._lines[kind], kind, self._lapse_s)
        async with asyncio.TaskGroup() as group:
            while True:
                await places.acquire()
                taken = await line.next()
                step = group.create_task(line.do(taken, handle))
                step.add_done_callback(lambda _: places.release())

    def close(self) -> None:
        """Let go of the file."""
        for line in self._lines.values():
            with suppress(LocalQueueError):
                line.purge(KEPT_S)
            line.close()


class _Line:
    """Steps of one kind, in the hands of a worker."""

    def __init__(self, queue: SimpleQueue[Message], kind: Step, lapse_s: float) -> None:
        self._queue, self._kind, self._lapse_s = queue, kind, lapse_s
        self._outage = Outage("the queue cannot be read", "the queue can be read again")

    async def next(self) -> Job[Message]:
        """The next step, once there is one."""
        while True:
            wait_s = POLL_S[self._kind]
            try:
                taken = await in_thread(self._queue.get_nowait)
                self._outage.works()
                return taken
            except Empty:
                self._outage.works()
            except LocalQueueError as error:
                self._outage.fails(str(error))
                wait_s = ERROR_S
            await asyncio.sleep(wait_s)

    async def do(self, taken: Job[Message], handle: Handle) -> None:
        """Do a step, or have it done again."""
        renewing = asyncio.create_task(self._renew(taken))
        try:
            await handle(cast(Step, taken.data["step"]), taken.data["job"])
        except asyncio.CancelledError:
            with suppress(LocalQueueError):
                self._queue.nack(taken)  # here, in ms: nothing may come between
            raise
        except Again as again:
            await self._give_back(taken, again.after_s)
        except Exception as error:
            log.error("step failed", step=taken.data["step"], job=taken.data["job"], exc_info=error)
            await self._give_back(taken, ERROR_S)
        else:
            with suppress(LocalQueueError):  # the lease lapsed: others find that nothing is left
                await in_thread(self._queue.ack, taken)
                await in_thread(self._queue.purge, KEPT_S)
        finally:
            renewing.cancel()

    async def _give_back(self, taken: Job[Message], after_s: float) -> None:
        with suppress(LocalQueueError):
            await in_thread(partial(self._queue.nack, taken, delay=after_s))

    async def _renew(self, taken: Job[Message]) -> None:
        while True:
            await asyncio.sleep(self._lapse_s / 3)
            with suppress(LocalQueueError):
                await in_thread(self._queue.extend_lease, taken, self._lapse_s)


def _not_opened(folder: Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"The queue of jobs cannot be opened: {error}. If {folder / QUEUE} is damaged, remove it "
        "while nothing runs: the next start fills it again from the jobs."
    )


def _written_at(folder: Path) -> float:
    """When one of its files was last written; 0 where there are none."""
    try:
        return max((file.stat().st_mtime for file in folder.iterdir()), default=0.0)
    except OSError:
        return 0.0
