"""Graphs (HNSW) of PostgreSQL's pgvector: one index over all vectors of one size.

Adding a vector takes more than ten times as long with a graph as without one, so none is made
before a search needs it. It is then made while others search and write (`CREATE INDEX
CONCURRENTLY`), and kept in step by the database. https://github.com/pgvector/pgvector#hnsw
"""

import logging
import time
from contextlib import suppress
from functools import partial

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from service.collections.beside import Beside
from service.collections.database import Database
from service.collections.records import StoreError
from service.collections.refusals import DISK_FULL

PAUSE_S = 60.0  # until one that could not be made is tried again
CLOSE_S = 5.0
CLOSED = "the store is closed"
_LOCK = 0x564C47  # of PostgreSQL: one graph is made at a time, whichever process makes it

log = logging.getLogger(__name__)


class Graphs:
    """The graphs of a database, and the thread that makes them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: set[int] = set()
        self._beside = Beside("graphs")
        self._at: psycopg.Connection | None = None  # where one is being made
        self._not_before = 0.0

    def has(self, dimensions: int) -> bool:
        """Whether there is a whole graph of the vectors of so many values."""
        if dimensions not in self._seen:
            with self._database.read() as connection:
                if _is_whole(connection, dimensions):
                    self._seen.add(dimensions)
        return dimensions in self._seen

    def make(self, dimensions: int) -> bool:
        """Make a graph, unless it is there or another is being made; a half-made one goes first.

        Returns:
            Whether it was made here.

        Raises:
            StoreError: it could not be made.
        """
        with self._database.session() as connection:
            lock = text("SELECT pg_try_advisory_lock(:lock)")  # which ends with the session
            if not connection.execute(lock, {"lock": _LOCK}).scalar_one():
                return False
            if _is_whole(connection, dimensions):
                return False
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("SET lock_timeout = 0"))
            try:
                self._may_be_cancelled(connection)
                _create(connection, dimensions)
            except BaseException:
                with suppress(DBAPIError):  # then it goes when the next one is made
                    connection.execute(text("SET lock_timeout = '1s'"))
                    _drop(connection, dimensions)
                if self._beside.is_closed:  # no failure of the database
                    raise StoreError(CLOSED) from None
                raise
            finally:
                self._at = None
        return True

    def make_beside(self, dimensions: int) -> None:
        """Make a graph in a thread, unless one is being made or was begun just now."""
        is_time = time.monotonic() >= self._not_before
        if is_time and self._beside.begin(partial(self._try_to_make, dimensions)):
            self._not_before = time.monotonic() + PAUSE_S

    def close(self) -> None:
        """Give up the one that is being made."""
        self._beside.close()
        if (at := self._at) is not None:
            with suppress(psycopg.Error):
                at.cancel_safe(timeout=CLOSE_S)
        self._beside.wait(CLOSE_S)

    def _try_to_make(self, dimensions: int) -> None:
        began = time.monotonic()
        try:
            if self.make(dimensions):
                took_s = time.monotonic() - began
                log.info("the graph of vectors of %d values is made: %.1f s", dimensions, took_s)
        except Exception as error:  # also that this user may make none
            if not self._beside.is_closed:
                log.warning("no graph of vectors of %d values: %s", dimensions, error)

    def _may_be_cancelled(self, connection: Connection) -> None:
        self._at = connection.connection.dbapi_connection  # type: ignore[assignment]
        if self._beside.is_closed:  # `close` sees the connection, or this sees that it is closed
            raise StoreError(CLOSED)


def of_size(dimensions: int) -> str:
    """The condition that a row of `windows` is in the graph."""
    return f"vector_dims(vector) = {dimensions}"


def _name(dimensions: int) -> str:
    return f"ix_windows_vector_{dimensions}"


def _is_whole(connection: Connection, dimensions: int) -> bool:
    query = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return bool(connection.execute(query, {"name": _name(dimensions)}).scalar())


def _drop(connection: Connection, dimensions: int) -> None:
    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {_name(dimensions)}"))


def _create(connection: Connection, dimensions: int) -> None:
    """Create it with several workers, or with one where shared memory does not suffice for them."""
    for workers in ("DEFAULT", "0"):
        connection.execute(text(f"SET max_parallel_maintenance_workers = {workers}"))
        _drop(connection, dimensions)
        try:
            connection.execute(
                text(
                    f"CREATE INDEX CONCURRENTLY {_name(dimensions)} ON windows USING hnsw "
                    f"((vector::halfvec({dimensions})) halfvec_cosine_ops) "
                    f"WHERE {of_size(dimensions)}"
                )
            )
            return
        except OperationalError as error:  # of /dev/shm containers have 64 MB
            if getattr(error.orig, "sqlstate", None) != DISK_FULL or workers == "0":
                raise
