"""A worker: takes steps from the queue, does them, and says that it is alive while it does.

That a file is done is written in one transaction with the last of its results. The job of a worker
that dies is begun again at the first file that is not done, whose results until then are dropped.
"""

import asyncio
from collections import defaultdict
from contextlib import aclosing, suppress
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from service.collections.attempts import Attempts
from service.collections.job_records import FileDone, Job, JobGone, JobsFull, State, Step
from service.collections.records import StoreError
from service.collections.uploads import PART_BYTES
from service.context import Context
from service.formats.job_requests import WITHOUT_FILES
from service.jobs.kinds import Doing
from service.jobs.webhooks import tell
from service.outage import Outage
from service.problems import Problem
from service.queueing import Queueing
from service.queues.queue import Again
from service.streams.lines import as_lines, broken_off, failure
from service.streams.streaming import Members
from service.threads import in_thread
from service.traffic.budget import Share
from service.uploads.spool import Spooled, nameless, write_whole

BEAT_S = 2.0  # or a third of the lapse, where that is less
LATER_S = 5.0  # where a service is too busy to say when
TELLERS = 8  # webhooks that a process posts at once: receivers may be slow
PASSING = (429, 503, 507)  # statuses of problems that pass by themselves

log = structlog.get_logger()


class Worker:
    """Does jobs, some at once, by the parts that requests are answered with."""

    def __init__(self, shared: Context, queueing: Queueing) -> None:
        self._shared, self._queueing = shared, queueing
        self._jobs, self._attempts = queueing.store.jobs, queueing.store.attempts
        self._put_off = _PutOff()
        self._store_fails = _outage("step put off", "steps are done again")
        self._is_leaving = asyncio.Event()
        self._in_hand: set[asyncio.Task[None]] = set()

    async def run(self, n_at_once: int) -> None:
        """Work until cancelled; a queue that cannot be reached is tried again."""
        self._shared.metrics.job_places.set(n_at_once)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._steps("run", n_at_once))
            group.create_task(self._steps("tell", TELLERS))

    async def _steps(self, kind: Step, n_at_once: int) -> None:
        """Do steps of a kind."""
        while True:
            try:
                await self._queueing.queue.work(kind, self._handle, n_at_once)
            except Exception as error:
                log.error("the queue of jobs fails", exc_info=error)
            await asyncio.sleep(LATER_S)

    async def leave(self) -> None:
        """Put down what is in hand, so that other workers take it at once."""
        self._is_leaving.set()
        if self._in_hand:
            await asyncio.wait(self._in_hand)

    async def _handle(self, step: Step, name: str) -> None:
        if self._is_leaving.is_set():
            raise Again
        doing = asyncio.create_task(self._do(step, name))
        self._in_hand.add(doing)
        doing.add_done_callback(self._in_hand.discard)
        try:
            await asyncio.shield(doing)
            self._store_fails.works()
        except asyncio.CancelledError:
            doing.cancel()
            await asyncio.wait([doing])
            raise
        except StoreError as error:
            if error.retry_after_s is None:
                raise
            self._store_fails.fails(error.message, step=step, job=name)
            raise Again(error.retry_after_s) from error

    async def _do(self, step: Step, name: str) -> None:
        if step == "tell":
            await tell(self._jobs, name)
            return
        lapse_s, put = self._queueing.lapse_s, self._queueing.queue.put
        began = await in_thread(self._attempts.begin, name, lapse_s, self._queueing.kept_s, put)
        if isinstance(began, float):
            raise Again(began)
        if began is not None:
            tell_of = log.debug if began.id in self._put_off.jobs else log.info
            tell_of("job begun", job=began.id, kind=began.kind, attempt=began.attempt)
            waited_s = self._queueing.store.now() - began.created_at
            self._shared.metrics.observe_job_begun(began.kind, began.attempt, waited_s)
            with self._shared.metrics.jobs_in_hand.track_inprogress():
                await self._work(began)

    async def _work(self, job: Job) -> None:
        """Do a job, unless it is cancelled, or taken away, or the worker leaves."""
        progress = Progress()
        run = _Run(self._shared, self._queueing, self._put_off, job, progress)
        working = asyncio.create_task(run.run())
        beating = asyncio.create_task(self._beat(job, progress))
        leaving = asyncio.create_task(self._is_leaving.wait())
        together: list[asyncio.Task[Any]] = [working, beating, leaving]
        try:
            await asyncio.wait(together, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await self._settle(job, working.result)
            elif beating.done():
                await _cancelled(working)
                await self._stop(job)
            else:
                raise Again
        except (Again, asyncio.CancelledError):
            await _cancelled(working)
            await in_thread(self._attempts.release, job)
            raise
        finally:
            for task in together:
                await _cancelled(task)

    async def _settle(self, job: Job, result: Any) -> None:
        """Write how a job has ended."""
        state: State = "done"
        error = None
        try:
            result()
        except JobGone:
            return await self._stop(job)
        except Again:
            raise
        except DBAPIError as cause:
            raise Again(LATER_S) from cause
        except Exception as cause:
            problem = broken_off(cause)
            self._put_off.raise_if_passing(job, problem)
            state, error = "failed", {"code": problem.kind.slug, "message": problem.detail}
        await self._end(job, state, error)
        return None

    async def _stop(self, job: Job) -> None:
        """End a job that was cancelled; what else is gone, or another's, is left alone."""
        with suppress(JobGone):
            await self._end(job, "cancelled", None)

    async def _end(self, job: Job, state: State, error: dict[str, str] | None) -> None:
        kept_s, put = self._queueing.kept_s, self._queueing.queue.put
        with suppress(JobGone):
            await in_thread(self._attempts.end, job, state, error, kept_s, put)
            self._put_off.is_over(job)
            log.info("job ended", job=job.id, kind=job.kind, state=state)
            took_s = self._queueing.store.now() - (job.started_at or job.created_at)
            self._shared.metrics.observe_job_ended(job.kind, state, took_s)

    async def _beat(self, job: Job, progress: "Progress") -> None:
        """Give signs of life for a job, until it is cancelled, deleted, or another worker's."""
        silent = _outage("no sign of life could be given", "signs of life are given again")
        while True:
            await asyncio.sleep(min(BEAT_S, self._queueing.lapse_s / 3))
            try:
                await in_thread(self._attempts.beat, job, progress.place, progress.audio_s)
                silent.works()
            except JobGone as gone:
                log.info("job stopped", job=job.id, reason=gone.message)
                return
            except Exception as error:  # of the database, which may come back in time
                silent.fails(str(error), job=job.id)


class _PutOff:
    """Problems that pass by themselves: each is told when it begins, and when jobs end again."""

    def __init__(self) -> None:
        self.jobs = set[str]()  # that were put off and have not ended here
        self._problems = defaultdict[str, Outage](
            lambda: _outage("job put off", "jobs are done again")
        )

    def raise_if_passing(self, job: Job, problem: Problem) -> None:
        """Put a job off that cannot be done now.

        Raises:
            Again: it is to be tried then.
        """
        if problem.status_code not in PASSING:
            return
        retry = (problem.headers or {}).get("Retry-After")
        again_in_s = float(retry) if retry else LATER_S
        slug, told = problem.kind.slug, {"job": job.id, "kind": job.kind, "again_in_s": again_in_s}
        self._problems[slug].fails(problem.detail, problem=slug, **told)
        self.jobs.add(job.id)
        raise Again(again_in_s)

    def is_over(self, job: Job) -> None:
        """A job has ended."""
        self.jobs.discard(job.id)
        for outage in self._problems.values():
            outage.works()


class Progress:
    """Which file is in hand, and how many seconds of it are decoded."""

    def __init__(self) -> None:
        self.place, self.audio_s = 0, 0.0

    def add(self, audio_s: float) -> None:
        """Count seconds that were decoded of it."""
        self.audio_s += audio_s


class _Run:
    """One job in the hands of its worker."""

    def __init__(
        self, shared: Context, queueing: Queueing, put_off: _PutOff, job: Job, progress: Progress
    ) -> None:
        self._shared, self._store, self._job = shared, queueing.store, job
        self._most_bytes, self._put_off, self._progress = queueing.most_bytes, put_off, progress

    async def run(self) -> None:
        """Do all of the job that is not done.

        Raises:
            JobGone: the worker is to stop.
            Again: the job can be done later.
            Problem, ServiceError: the job cannot be done at all.
        """
        doing = Doing.again(self._shared, self._job)
        with self._shared.budget.share() as share:
            if self._job.kind in WITHOUT_FILES:
                told = await doing.whole(self._job, share)
                await in_thread(self._store.attempts.write, self._job, 0, 0, as_lines([told]))
                return
            await doing.plan()  # what cannot be done at all is no fault of a file
            for place in range(self._job.n_done, self._job.n_files):
                with share.lent():
                    await self._file(doing, place, share)

    async def _file(self, doing: Doing, place: int, share: Share) -> None:
        """One file, whose failure does not stop the others."""
        self._progress.place, self._progress.audio_s = place, 0.0
        upload = await in_thread(self._store.uploads.of_job, self._job.key, place)
        if upload is None:
            raise JobGone("The job's files are gone.")
        lines = _Lines(self._store.attempts, self._job, place, self._most_bytes)
        file, on_disk = nameless()
        with file:
            if not on_disk:
                await share.take(upload.n_bytes)
            await in_thread(write_whole, file, self._store.uploads.content(upload))
            file.seek(0)
            spooled = Spooled(file, upload.file)
            given = doing.lines(self._job, place, spooled, share, self._spend)
            try:
                async with aclosing(given):
                    async for members in given:
                        await lines.add(members)
            except (JobGone, JobsFull, Again, DBAPIError):
                raise  # no fault of the file
            except Exception as error:
                problem = broken_off(error)
                self._put_off.raise_if_passing(self._job, problem)
                await lines.add([failure(problem, self._job.id)])
        done = FileDone(self._progress.audio_s, lines.n_windows, lines.has_failed)
        last = lines.part, bytes(lines.held), done, self._most_bytes
        await in_thread(self._store.attempts.file_done, self._job, place, *last)

    def _spend(self, audio_s: float) -> None:
        self._progress.add(audio_s)
        self._shared.metrics.observe_stream(audio_s)


class _Lines:
    """Writes lines to the result, some of them at a time."""

    def __init__(self, attempts: Attempts, job: Job, place: int, most_bytes: int) -> None:
        self._attempts, self._job, self._place = attempts, job, place
        self._most_bytes = most_bytes
        self.held, self.part = bytearray(), 0
        self.n_windows, self.has_failed = 0, False

    async def add(self, members: list[Members]) -> None:
        """Add lines; once there are enough of them they are kept."""
        for one in members:
            if one["object"] == "done":
                self.n_windows = one["usage"]["windows"]
            self.has_failed = self.has_failed or one["object"] == "error"
        self.held += as_lines(members)
        if len(self.held) >= PART_BYTES:
            held = bytes(self.held)
            part = self._place, self.part, held, self._most_bytes
            await in_thread(self._attempts.write, self._job, *part)
            self.held, self.part = bytearray(), self.part + 1


def _outage(lost: str, back: str) -> Outage:
    return Outage(lost, back, steady_s=LATER_S, level="warning")


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
