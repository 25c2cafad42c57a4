"""Files that come in parts, each on the disk before it is acknowledged, until a job takes them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update

from service.collections.database import Database
from service.collections.job_records import Upload, UploadConflict, UploadNotFound, UploadsFull
from service.collections.schema import jobs, upload_parts, uploads

PART_BYTES = 1 << 20  # of a file, in one row
MAX_WAITING = 10_000  # uploads of one owner that no job has; an empty one takes a row as well
_LOCK = 0x564C4A  # of PostgreSQL, with a hash of the owner


class Uploads:
    """Uploads by owner and id. What is not the owner's is as good as not there."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now

    def create(
        self, owner: str, n_bytes: int, file: str | None, *, most_bytes: int, kept_s: float
    ) -> Upload:
        """Announce a file of so many bytes.

        Raises:
            UploadsFull: the owner's files and jobs would take more than `most_bytes`, or too many
                files wait.
        """
        now = self._now()
        name = uuid4().hex
        row = {
            "name": name,
            "owner": owner,
            "file": file,
            "n_bytes": n_bytes,
            "n_received": 0,
            "created_at": now,
            "expires_at": now + kept_s,
        }
        with self._database.write() as connection:
            _check_room(connection, owner, n_bytes, most_bytes)
            _check_number(connection, owner)
            connection.execute(insert(uploads).values(row))
            return _upload(_named(connection, owner, name))

    def get(self, owner: str, name: str) -> Upload:
        """The upload of that id, as far as it has come.

        Raises:
            UploadNotFound: the owner has none.
        """
        with self._database.read() as connection:
            return _upload(_named(connection, owner, name))

    def append(self, owner: str, name: str, first: int, data: bytes) -> Upload:
        """Add bytes behind those that have come, which are `first`.

        Raises:
            UploadNotFound: the owner has none of that id.
            UploadConflict: as many have not come, or more than announced would.
        """
        with self._database.write() as connection:
            row = _named(connection, owner, name, for_update=True)
            _check_follows(row, first, len(data))
            if data:
                part = {"upload": row.id, "first": first, "data": data}
                connection.execute(insert(upload_parts).values(part))
                after = first + len(data)
                mine = uploads.c.id == row.id
                connection.execute(update(uploads).where(mine).values(n_received=after))
            return _upload(_named(connection, owner, name))

    def delete(self, owner: str, name: str) -> None:
        """Delete an upload that no job has.

        Raises:
            UploadNotFound: the owner has none of that id.
            UploadConflict: a job has it.
        """
        with self._database.write() as connection:
            row = _named(connection, owner, name, for_update=True)
            if row.job is not None:
                raise UploadConflict("A job has this upload: cancel the job.")
            connection.execute(delete(uploads).where(uploads.c.id == row.id))
        self._database.give_back_space()

    def expire(self) -> int:
        """Delete those that no job has taken in time; how many there were."""
        old = uploads.c.job.is_(None) & (uploads.c.expires_at < self._now())
        n_deleted = self._database.delete_all(uploads, old)
        if n_deleted:
            self._database.give_back_space()
        return n_deleted

    def of_job(self, job: int, place: int) -> Upload | None:
        """The file at that place of a job; None: it is gone."""
        query = select(uploads).where(uploads.c.job == job, uploads.c.place == place)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _upload(row)

    def content(self, upload: Upload) -> Iterator[bytes]:
        """The bytes that have come, in parts."""
        first = 0
        while first < upload.n_received:
            wanted = (upload_parts.c.upload == upload.key) & (upload_parts.c.first == first)
            with self._database.read() as connection:
                data = connection.execute(
                    select(upload_parts.c.data).where(wanted)
                ).scalar_one_or_none()
            if data is None:
                raise UploadNotFound("The file has been deleted meanwhile.")
            first += len(data)
            yield bytes(data)


def give_to_job(connection: Connection, owner: str, names: Sequence[str], job: int) -> None:
    """Let a job have these uploads, in this order.

    Raises:
        UploadNotFound: one of them is not there.
        UploadConflict: one of them is not whole, or another job has it.
    """
    # Locked in one order, as two jobs may name the same ones in different orders
    rows = {name: _named(connection, owner, name, for_update=True) for name in sorted(names)}
    for place, name in enumerate(names):
        row = rows[name]
        if row.job is not None:
            raise UploadConflict(f"A job has the upload {name!r} already.")
        if row.n_received != row.n_bytes:
            raise UploadConflict(
                f"Of the upload {name!r} {row.n_received} bytes have come, of {row.n_bytes}: send "
                "the rest first.",
                limit=row.n_bytes,
                observed=row.n_received,
                unit="bytes",
            )
        mine = uploads.c.id == row.id
        connection.execute(update(uploads).where(mine).values(job=job, place=place))


def _check_room(connection: Connection, owner: str, n_bytes: int, most_bytes: int) -> None:
    if connection.dialect.name == "postgresql":  # where others may announce at the same moment
        lock = text("SELECT pg_advisory_xact_lock(:lock, hashtext(:owner))")
        connection.execute(lock, {"lock": _LOCK, "owner": owner})
    held = bytes_of(connection, owner)
    if held + n_bytes > most_bytes:
        raise UploadsFull(
            f"Files that wait for jobs, and jobs with their results, take {held} bytes; with this "
            f"one it would be {held + n_bytes}, and at most {most_bytes} are allowed. Wait for "
            "jobs to end, or delete jobs and uploads.",
            limit=most_bytes,
            observed=held + n_bytes,
            unit="bytes",
        )


def bytes_of(connection: Connection, owner: str) -> int:
    """What the owner's files take, and the owner's jobs with their results."""
    total = 0
    for table in (uploads, jobs):
        query = select(func.coalesce(func.sum(table.c.n_bytes), 0)).where(table.c.owner == owner)
        total += int(connection.execute(query).scalar_one())
    return total


def _check_number(connection: Connection, owner: str) -> None:
    waiting = select(func.count()).where(uploads.c.owner == owner, uploads.c.job.is_(None))
    present = connection.execute(waiting).scalar_one()
    if present >= MAX_WAITING:
        raise UploadsFull(
            f"{present} uploads wait for a job; at most {MAX_WAITING} may. Give them to jobs, or "
            "delete some.",
            limit=MAX_WAITING,
            observed=present + 1,
            unit="uploads",
        )


def _check_follows(row: Row[Any], first: int, n_bytes: int) -> None:
    if first != row.n_received:
        raise UploadConflict(
            f"{row.n_received} bytes have come; these are said to begin at {first}. Ask with HEAD "
            "where to go on.",
            limit=row.n_received,
            observed=first,
            unit="bytes",
        )
    if first + n_bytes > row.n_bytes:
        raise UploadConflict(
            f"{row.n_bytes} bytes were announced; with these it would be {first + n_bytes}.",
            limit=row.n_bytes,
            observed=first + n_bytes,
            unit="bytes",
        )


def _named(connection: Connection, owner: str, name: str, *, for_update: bool = False) -> Row[Any]:
    query = select(uploads).where(uploads.c.name == name, uploads.c.owner == owner)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    if row is None:
        raise UploadNotFound(f"There is no upload {name!r}.")
    return row


def _upload(row: Row[Any]) -> Upload:
    return Upload(
        row.id,
        row.name,
        row.file,
        row.n_bytes,
        row.n_received,
        row.job is not None,
        row.expires_at,
    )
