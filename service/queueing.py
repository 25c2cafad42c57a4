"""Jobs as the service has them: kept in the store of the collections, and a queue beside it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Self

import structlog

from service.collecting import Collecting
from service.collections.job_records import Backlog, Charge, Job, NewJob, Step
from service.collections.store import Store
from service.outage import Outage
from service.queues.queue import Queue
from service.settings import Settings, SettingsError
from service.threads import in_thread

HOUR_S = 3600.0
EXPIRY_S = 600.0  # between two looks at what is too old
SILENT = 3  # lapses after which a queue should have given a job to another worker
CHARGE_S = 1.0  # between two looks at what jobs have cost
LOOK_S = 5.0  # between two looks at how many jobs there are, for the metrics

log = structlog.get_logger()


@dataclass
class Seen:
    """What was last seen of the jobs in the store: None where they could not be looked at.

    Attributes:
        n_silent: jobs in hand whose worker has not been heard of for longer than the lapse.
    """

    backlog: list[Backlog] | None = None
    n_silent: int = 0


@dataclass(frozen=True)
class Queueing:
    """The store, the queue, and how much of both a key may have.

    Attributes:
        most_jobs: unfinished ones of a key.
        most_bytes: of files that wait, and of jobs with their results, of a key.
        kept_s: how long a result is kept.
        uploads_kept_s: how long an upload may take.
        lapse_s: after a worker's last sign of life another takes its job.
        seen: what the metrics tell, which never wait for the database.
    """

    store: Store
    queue: Queue
    most_jobs: int
    most_bytes: int
    kept_s: float
    uploads_kept_s: float
    lapse_s: float
    seen: Seen = field(default_factory=Seen)

    @classmethod
    def open(cls, settings: Settings, collecting: Collecting | None) -> Self | None:
        """Beside the collections; None where there are none.

        Raises:
            SettingsError: what the queue needs is not installed.
        """
        if collecting is None:
            return None
        queue = _queue(settings)
        queueing = cls(
            collecting.store,
            queue,
            settings.max_jobs,
            settings.max_job_bytes,
            settings.job_kept_hours * HOUR_S,
            settings.upload_kept_hours * HOUR_S,
            settings.job_lapse_s,
        )
        if queue.is_lost():
            queueing.fill()
        return queueing

    async def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job and put it into the queue; returns it, and whether it is new.

        Raises:
            StoreError: there are too many, or its files are not there.
        """
        submit, put = self.store.jobs.submit, self.queue.put
        return await in_thread(submit, new, self.most_jobs, put, self.most_bytes)

    async def tend(self) -> None:
        """Delete what is too old, and find jobs that a queue has forgotten, every ten minutes."""
        while True:
            try:
                await in_thread(self._put_silent_again)
                await in_thread(self.store.uploads.expire)
                n_expired = await in_thread(self.store.jobs.expire)
                if n_expired:
                    log.info("jobs expired", jobs=n_expired)
            except Exception as error:  # of a database that may come back
                log.warning("jobs could not be expired", reason=str(error))
            await asyncio.sleep(EXPIRY_S)

    def _put_silent_again(self) -> None:
        """Put jobs into the queue that should be in it, and may not be any more.

        A worker that was thought dead and then finishes removes from the queue a job that another
        worker has by now. If that worker dies, the queue will not give the job to a third. A job
        that is put into the queue twice does no harm.
        """
        for name in self.store.attempts.silent(SILENT * self.lapse_s):
            log.warning("job put into the queue again", job=name)
            self._put("run", name)

    def fill(self) -> None:
        """Put all that is to be done into the queue; what is in it already does no harm."""
        for name in self.store.jobs.waiting():
            self._put("run", name)
        for name in self.store.jobs.untold():
            self._put("tell", name)

    def _put(self, step: Step, name: str) -> None:
        with self.store.database.write() as connection:
            self.queue.put(connection, step, name)

    def _clock_offset(self) -> float:
        """By how much the store's clock is ahead of the monotonic one."""
        return self.store.now() - monotonic()

    def _fill_if_set_back(self, offset: float) -> float:
        """Fill the queue if the clock was set back since it had this offset; the offset now.

        The steps in the queue would wait until their times come again.
        """
        now = self._clock_offset()
        if now < offset - self.lapse_s:
            log.warning("the clock was set back, jobs are put into the queue again", s=offset - now)
            self.fill()
        return now

    async def watch(self) -> None:
        """Look at the time and at how many jobs there are, every few seconds."""
        offset, outage = self._clock_offset(), Outage("jobs could not be counted")
        while True:
            try:
                await in_thread(self.store.ask_the_time)
                offset = await in_thread(self._fill_if_set_back, offset)
                self.seen.n_silent = len(await in_thread(self.store.attempts.silent, self.lapse_s))
                self.seen.backlog = await in_thread(self.store.jobs.backlog)
                outage.works()
            except Exception as error:  # of a database that may come back
                outage.fails(str(error))
                self.seen.backlog = None
            await asyncio.sleep(LOOK_S)

    async def settle(self, charge: Callable[[Charge], None]) -> None:
        """Charge keys with what their jobs cost, whichever process works on them."""
        outage = Outage("jobs could not be charged")
        while True:
            try:
                for one in await in_thread(self.store.jobs.charges):
                    charge(one)
                outage.works()
            except Exception as error:  # of a database that may come back
                outage.fails(str(error))
            await asyncio.sleep(CHARGE_S)


def _queue(settings: Settings) -> Queue:
    try:
        if settings.database_url is not None:
            from service.queues.postgres import PostgresQueue

            address = settings.database_url.get_secret_value()
            return PostgresQueue(address, settings.job_lapse_s)
        from service.queues.local import LocalQueue
    except ModuleNotFoundError as error:
        extra = "serve" if settings.database_url is None else "postgres"
        raise SettingsError(
            f"jobs need {error.name}, which is not installed: pip install 'viola-audio[{extra}]'"
        ) from None
    assert settings.data is not None
    return LocalQueue(settings.data, settings.job_lapse_s)
