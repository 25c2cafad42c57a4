"""Jobs as their owners see them: submitted, read, cancelled; what they cost, and their webhooks.

What workers do with jobs is in `attempts.py`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.collections.database import Database
from service.collections.job_records import (
    ENDED,
    Backlog,
    Charge,
    Job,
    JobDiffers,
    JobNotDone,
    NewJob,
    Put,
    State,
    TooManyJobs,
)
from service.collections.job_rows import (
    by_key,
    by_name,
    change,
    check_room,
    ended,
    job_of,
    named,
)
from service.collections.schema import UNCHARGED, job_results, jobs
from service.collections.uploads import give_to_job

MAX_PAGE_BYTES = 4 << 20  # of the parameters of all jobs that are listed at once
UNENDED: tuple[State, ...] = ("queued", "running")


class Jobs:
    """Jobs by owner and id. What is not the owner's is as good as not there."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now

    def submit(
        self, new: NewJob, most: int, put: Put, most_bytes: int | None = None
    ) -> tuple[Job, bool]:
        """Keep a job and put it into the queue; its uploads are its own from now on.

        Returns:
            The job, and whether it is new: of a request that was sent before it is the same one.

        Raises:
            JobDiffers: that request was another one.
            TooManyJobs: the owner has as many unfinished ones as `most`.
            JobsFull: the owner's jobs and files would take more than `most_bytes`.
            UploadNotFound: one of the uploads is not there.
            UploadConflict: one of them is not whole, or another job has it.
        """
        with suppress(IntegrityError):  # the same request came twice at the same moment
            return self._submit(new, most, put, most_bytes)
        return self._submit(new, most, put, most_bytes)

    def _submit(self, new: NewJob, most: int, put: Put, most_bytes: int | None) -> tuple[Job, bool]:
        name = uuid4().hex
        with self._database.write() as connection:
            if (there := _of_request(connection, new)) is not None:
                return there, False
            _check_number(connection, new.owner, most)
            asked = json.dumps(dict(new.asked), allow_nan=False)
            check_room(connection, new.owner, len(asked), most_bytes)
            row = {
                "name": name,
                "owner": new.owner,
                "network": new.network,
                "groups": json.dumps(new.groups),
                "request": new.request,
                "content": new.content,
                "kind": new.kind,
                "state": "queued",
                "asked": asked,
                "n_bytes": len(asked),
                "n_files": len(new.uploads),
                "webhook": None if new.webhook is None else json.dumps(dict(new.webhook)),
                "webhook_state": None if new.webhook is None else "pending",
                "created_at": self._now(),
            }
            key = connection.execute(insert(jobs).values(row).returning(jobs.c.id)).scalar_one()
            give_to_job(connection, new.owner, new.uploads, key)
            put(connection, "run", name)
            return job_of(by_key(connection, key)), True

    def get(self, owner: str, name: str) -> Job:
        """The job of that name.

        Raises:
            JobNotFound: the owner has none.
        """
        with self._database.read() as connection:
            return job_of(named(connection, owner, name))

    def page(self, owner: str, before: int | None, limit: int, state: str | None) -> list[Job]:
        """The owner's jobs, the newest first, those older than the key `before`."""
        with self._database.read() as connection:
            return [job_of(row) for row in connection.execute(_page(owner, before, limit, state))]

    def fitting(self, owner: str, before: int | None, limit: int, state: str | None) -> int:
        """How many jobs a page may have: `limit`, or fewer where their parameters are long."""
        query = _page(owner, before, limit, state).with_only_columns(func.length(jobs.c.asked))
        n_bytes = 0
        with self._database.read() as connection:
            for place, length in enumerate(connection.execute(query).scalars()):
                n_bytes += length
                if n_bytes > MAX_PAGE_BYTES:
                    return max(1, place)
        return limit

    def cancel(self, owner: str, name: str, lapse_s: float, kept_s: float, put: Put) -> Job:
        """End a job that waits, or whose worker is dead; else ask the worker to stop.

        Raises:
            JobNotFound: the owner has none of that name.
        """
        with self._database.write() as connection:
            row = named(connection, owner, name, for_update=True)
            is_running = row.state == "running"
            is_alone = is_running and row.beat_at + lapse_s <= self._now()
            if row.state == "queued" or is_alone:
                ended(connection, row, "cancelled", None, self._now(), kept_s, put)
            elif is_running:
                change(connection, row.id, is_stopping=True)
            return job_of(named(connection, owner, name))

    def delete(self, owner: str, name: str) -> None:
        """Delete a job with its files and its result; its worker stops.

        Raises:
            JobNotFound: the owner has none of that name.
        """
        with self._database.write() as connection:
            row = named(connection, owner, name, for_update=True)
            connection.execute(delete(jobs).where(jobs.c.id == row.id))
        self._database.give_back_space()

    def expire(self) -> int:
        """Delete the jobs whose results have been kept for long enough; how many there were."""
        n_deleted = self._database.delete_all(jobs, jobs.c.expires_at < self._now())
        if n_deleted:
            self._database.give_back_space()
        return n_deleted

    def result(self, job: Job) -> Iterator[bytes]:
        """The result in parts, file by file.

        Raises:
            JobNotDone: it has not ended.
        """
        if job.state not in ENDED:
            raise JobNotDone(f"The job is {job.state}: {job.n_done} of {job.n_files} files done.")
        return self._parts(job)

    def _parts(self, job: Job) -> Iterator[bytes]:
        held = job_results.c
        last = (-1, -1)
        while True:
            # A part a transaction: whoever reads slowly holds nothing
            file, part = last
            query = select(held.file, held.part, held.data).where(
                held.job == job.key,
                (held.file > file) | ((held.file == file) & (held.part > part)),
            )
            with self._database.read() as connection:
                row = connection.execute(query.order_by(held.file, held.part).limit(1)).first()
            if row is None:
                return
            last = (row.file, row.part)
            yield bytes(row.data)

    def to_tell(self, name: str) -> Job | None:
        """The job whose end is to be posted to its webhook; None if there is nothing to post.

        The step may come before the transaction that ends the job has ended: then this waits.
        """
        with self._database.write() as connection:
            row = by_name(connection, name, for_update=True)
        if row is None or row.state not in ENDED or row.webhook_state != "pending":
            return None
        return job_of(row)

    def told(self, job: Job, state: str) -> None:
        """Note what became of a webhook; after its last try, address and secret are forgotten."""
        values: dict[str, Any] = {"webhook_tries": job.webhook_tries + 1, "webhook_state": state}
        if state != "pending":
            values["webhook"] = None
        with self._database.write() as connection:
            change(connection, job.key, **values)

    def charges(self, limit: int = 100) -> list[Charge]:
        """What jobs have cost since the last call; each second is returned once."""
        cost = jobs.c.audio_s + jobs.c.ahead_s
        query = select(jobs.c.id, jobs.c.owner, jobs.c.network, jobs.c.charged_s, cost.label("s"))
        query = query.where(UNCHARGED).order_by(jobs.c.id).limit(limit)
        with self._database.read() as connection:
            if not (rows := connection.execute(query).all()):
                return []
        found = []
        with self._database.write() as connection:
            for row in rows:
                same = (jobs.c.id == row.id) & (jobs.c.charged_s == row.charged_s)
                changed = update(jobs).where(same).values(charged_s=row.s)
                if connection.execute(changed).rowcount:
                    found.append(Charge(row.owner, row.network, row.s - row.charged_s))
        return found

    def waiting(self) -> list[str]:
        """Names of all jobs that have not ended, the oldest first."""
        query = select(jobs.c.name).where(jobs.c.state.in_(UNENDED)).order_by(jobs.c.id)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def backlog(self) -> list[Backlog]:
        """How many jobs of all owners wait and run, by kind."""
        query = (
            select(jobs.c.kind, jobs.c.state, func.count(), func.min(jobs.c.created_at))
            .where(jobs.c.state.in_(UNENDED))
            .group_by(jobs.c.kind, jobs.c.state)
        )
        with self._database.read() as connection:
            return [Backlog(*row) for row in connection.execute(query)]

    def untold(self) -> list[str]:
        """Names of the jobs that have ended and whose webhook has still to be called."""
        query = select(jobs.c.name).where(
            jobs.c.state.in_(ENDED), jobs.c.webhook_state == "pending"
        )
        with self._database.read() as connection:
            return list(connection.execute(query.order_by(jobs.c.id)).scalars())


def _of_request(connection: Connection, new: NewJob) -> Job | None:
    """The job of an earlier request with the same idempotency key, if there is one.

    Raises:
        JobDiffers: that request asked for something else.
    """
    if new.request is None:
        return None
    same = (jobs.c.owner == new.owner) & (jobs.c.request == new.request)
    row = connection.execute(select(jobs).where(same)).one_or_none()
    if row is None:
        return None
    job = job_of(row)
    is_same = (job.kind, dict(job.asked), job.n_files) == (
        new.kind,
        dict(new.asked),
        len(new.uploads),
    )
    if not is_same or row.content not in (None, new.content):
        raise JobDiffers(f"The job {job.id!r} was submitted with this key, and is another one.")
    return job


def _page(owner: str, before: int | None, limit: int, state: str | None) -> Select[Any]:
    """The owner's jobs older than the key `before`, the newest first."""
    query = select(jobs).where(jobs.c.owner == owner).order_by(jobs.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return query if state is None else query.where(jobs.c.state == state)


def _check_number(connection: Connection, owner: str, most: int) -> None:
    unended = select(func.count()).where(jobs.c.owner == owner, jobs.c.state.in_(UNENDED))
    present = connection.execute(unended).scalar_one()
    if present >= most:
        raise TooManyJobs(
            f"{present} jobs wait or run; at most {most} may. Wait for some to end, or put more "
            "files into one job.",
            limit=most,
            observed=present + 1,
            unit="jobs",
        )
