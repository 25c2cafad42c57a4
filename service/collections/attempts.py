"""Jobs in the hands of workers: taken by one at a time, written to, ended or put down.

A job's `attempt` tells its worker from earlier ones: it is raised whenever the job is begun, and
what a worker with an older number writes is refused. So a result is there once, however often a job
is begun.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, case, delete, insert, select, update

from service.collections.database import Database
from service.collections.job_records import ENDED, FileDone, Job, JobGone, Put, State
from service.collections.job_rows import (
    by_key,
    by_name,
    change,
    check_room,
    ended,
    forget_unfinished,
    job_of,
    locked,
)
from service.collections.schema import job_results, jobs, uploads

MAX_TRIES = 5  # of one file whose workers die


class Attempts:
    """Work on jobs, whoever owns them."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now

    def begin(self, name: str, lapse_s: float, kept_s: float, put: Put) -> Job | float | None:
        """Take a job to work on it.

        Returns:
            The job, whose `attempt` is now the caller's; or seconds after which to come again, as
            another worker is at it; or None: there is nothing to do.
        """
        with self._database.write() as connection:
            row, now = by_name(connection, name, for_update=True), self._now()
            if row is None or row.state in ENDED:
                return None
            if row.state == "running" and row.beat_at > now:  # the clock was set back
                change(connection, row.id, beat_at=now)
                return lapse_s
            if row.state == "running" and (left_s := row.beat_at + lapse_s - now) > 0:
                return float(left_s)
            if row.is_stopping:
                ended(connection, row, "cancelled", None, now, kept_s, put)
                return None
            if row.tries >= MAX_TRIES:
                of = f"file {row.n_done}" if row.n_files else "this job"
                reason = f"{MAX_TRIES} workers died one after the other of {of}."
                ended(connection, row, "failed", _error("internal", reason), now, kept_s, put)
                return None
            change(
                connection,
                row.id,
                n_bytes=row.n_bytes - forget_unfinished(connection, row),
                state="running",
                attempt=row.attempt + 1,
                tries=row.tries + 1,
                beat_at=now,
                started_at=now if row.started_at is None else row.started_at,
            )
            return job_of(by_key(connection, row.id))

    def beat(self, job: Job, place: int = 0, ahead_s: float = 0.0) -> None:
        """Note that the job's worker is alive, and how far it is in the file at that place.

        Raises:
            JobGone: the worker is to stop.
        """
        with self._database.write() as connection:
            row = _mine(connection, job)
            ahead_s = max(row.ahead_s, ahead_s if place == row.n_done else 0.0)
            change(connection, row.id, beat_at=self._now(), ahead_s=ahead_s)

    def write(
        self, job: Job, file: int, part: int, data: bytes, most_bytes: int | None = None
    ) -> None:
        """Keep a part of a file's lines.

        Raises:
            JobGone: the worker is to stop.
            JobsFull: the owner's jobs and files would take more than `most_bytes`.
        """
        with self._database.write() as connection:
            row = _mine(connection, job)
            n_bytes = _keep_part(connection, row, file, part, data, most_bytes)
            change(connection, row.id, n_bytes=n_bytes)

    def file_done(
        self,
        job: Job,
        file: int,
        part: int,
        data: bytes,
        done: FileDone,
        most_bytes: int | None = None,
    ) -> None:
        """Keep the last part of a file's lines, and forget the file itself.

        Raises:
            JobGone: the worker is to stop.
            JobsFull: the owner's jobs and files would take more than `most_bytes`.
        """
        with self._database.write() as connection:
            row = _mine(connection, job)
            connection.execute(
                delete(uploads).where(uploads.c.job == row.id, uploads.c.place == file)
            )
            n_bytes = _keep_part(connection, row, file, part, data, most_bytes)
            change(
                connection,
                row.id,
                beat_at=self._now(),
                tries=0,
                n_bytes=n_bytes,
                n_done=file + 1,
                n_failed=row.n_failed + done.has_failed,
                n_windows=row.n_windows + done.n_windows,
                audio_s=row.audio_s + max(done.audio_s, row.ahead_s),
                ahead_s=0.0,
            )

    def end(
        self, job: Job, state: State, error: Mapping[str, Any] | None, kept_s: float, put: Put
    ) -> None:
        """End a job, whose worker has done with it.

        Raises:
            JobGone: it was deleted, or another worker has it.
        """
        with self._database.write() as connection:
            row = _mine(connection, job, may_stop=True)  # what is done when it is cancelled is done
            if state == "cancelled" and not row.is_stopping:
                raise JobGone("Nobody has cancelled the job.")
            ended(connection, row, state, error, self._now(), kept_s, put)

    def release(self, job: Job) -> None:
        """Let another worker take the job, as this one leaves."""
        mine = (jobs.c.id == job.key) & (jobs.c.attempt == job.attempt)
        with self._database.write() as connection:
            connection.execute(
                update(jobs)
                .where(mine, jobs.c.state == "running")
                .values(state="queued", tries=case((jobs.c.tries > 0, jobs.c.tries - 1), else_=0))
            )

    def silent(self, lapse_s: float) -> list[str]:
        """Names of running jobs whose worker has not been heard of for so long.

        A worker that was last heard of at a time to come counts as silent: the clock was set back.
        """
        now = self._now()
        is_heard = jobs.c.beat_at.between(now - lapse_s, now + lapse_s)
        query = select(jobs.c.name).where(jobs.c.state == "running", ~is_heard)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())


def _error(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def _mine(connection: Connection, job: Job, *, may_stop: bool = False) -> Row[Any]:
    """The row of a job that its worker may write to."""
    row = connection.execute(locked(jobs.c.id == job.key)).one_or_none()
    if row is None:
        raise JobGone("The job was deleted.")
    if row.state != "running" or row.attempt != job.attempt:
        raise JobGone("Another worker has taken the job.")
    if row.is_stopping and not may_stop:
        raise JobGone("The job was cancelled.")
    return row


def _keep_part(
    connection: Connection,
    row: Row[Any],
    file: int,
    part: int,
    data: bytes,
    most_bytes: int | None,
) -> int:
    """Keep a part of a file's lines; how many bytes the job then takes.

    Raises:
        JobsFull: the owner's jobs and files would take more than `most_bytes`.
    """
    check_room(connection, row.owner, len(data), most_bytes)
    values = {"job": row.id, "file": file, "part": part, "data": data}
    connection.execute(insert(job_results).values(values))
    return int(row.n_bytes) + len(data)
