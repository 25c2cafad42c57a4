"""The rows of jobs: found, changed and read, within a transaction of whoever needs it."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select, update

from service.collections.job_records import Job, JobNotFound, JobsFull, Put, State
from service.collections.schema import job_results, jobs, uploads
from service.collections.uploads import bytes_of


def ended(
    connection: Connection,
    row: Row[Any],
    state: State,
    error: Mapping[str, Any] | None,
    now: float,
    kept_s: float,
    put: Put,
) -> None:
    """End a job: its files are deleted, and whoever waits for it is to be told."""
    connection.execute(delete(uploads).where(uploads.c.job == row.id))
    # The result says nothing of a file that was not finished
    n_forgotten = forget_unfinished(connection, row) if row.n_files else 0
    change(
        connection,
        row.id,
        n_bytes=row.n_bytes - n_forgotten,
        state=state,
        error=None if error is None else json.dumps(dict(error)),
        ended_at=now,
        expires_at=now + kept_s,
        audio_s=row.audio_s + row.ahead_s,
        ahead_s=0.0,
    )
    if row.webhook is not None:
        put(connection, "tell", row.name)


def check_room(connection: Connection, owner: str, n_bytes: int, most_bytes: int | None) -> None:
    """Check that there is room for so many bytes more; without `most_bytes` there always is.

    Raises:
        JobsFull: the owner's jobs and files would take more than `most_bytes`.
    """
    if most_bytes is None:
        return
    held = bytes_of(connection, owner)
    if held + n_bytes > most_bytes:
        raise JobsFull(
            f"Jobs with their results, and files that wait for them, take {held} bytes; with this "
            f"it would be {held + n_bytes}, and at most {most_bytes} are allowed. Delete jobs "
            "whose results are not needed.",
            limit=most_bytes,
            observed=held + n_bytes,
            unit="bytes",
        )


def forget_unfinished(connection: Connection, row: Row[Any]) -> int:
    """Delete the lines of the file in hand; how many bytes they were."""
    unfinished = (job_results.c.job == row.id) & (job_results.c.file >= row.n_done)
    n_bytes = select(func.coalesce(func.sum(func.length(job_results.c.data)), 0)).where(unfinished)
    n_forgotten = int(connection.execute(n_bytes).scalar_one())
    connection.execute(delete(job_results).where(unfinished))
    return n_forgotten


def change(connection: Connection, key: int, **values: Any) -> None:
    """Set columns of a job."""
    connection.execute(update(jobs).where(jobs.c.id == key).values(**values))


def locked(condition: Any) -> Select[Any]:
    """A query for jobs that nobody else may change until the transaction ends."""
    return select(jobs).where(condition).with_for_update()


def by_name(connection: Connection, name: str, *, for_update: bool = False) -> Row[Any] | None:
    """The job of that name, or None."""
    wanted = jobs.c.name == name
    return connection.execute(
        locked(wanted) if for_update else select(jobs).where(wanted)
    ).one_or_none()


def by_key(connection: Connection, key: int) -> Row[Any]:
    """The job of that number, which is there."""
    return connection.execute(select(jobs).where(jobs.c.id == key)).one()


def named(connection: Connection, owner: str, name: str, *, for_update: bool = False) -> Row[Any]:
    """The owner's job of that name.

    Raises:
        JobNotFound: the owner has none.
    """
    row = by_name(connection, name, for_update=for_update)
    if row is None or row.owner != owner:
        raise JobNotFound(f"There is no job {name!r}.")
    return row


def job_of(row: Row[Any]) -> Job:
    """The job of a row of the table."""
    members: dict[str, Any] = row._asdict()
    members |= {"key": row.id, "id": row.name, "audio_s": row.audio_s + row.ahead_s}
    for name in ("asked", "error", "webhook"):
        members[name] = json.loads(members[name]) if members[name] else None
    members["groups"] = tuple(json.loads(row.groups))
    return Job(**{name: members[name] for name in Job.__dataclass_fields__})
