"""Everything that is kept, in one place: opened once, used by many threads.

    collection, _ = store.collections.put("", "birds", terms, quota)
    store.items.add(collection, [item], quota)
    store.index.nearest(collection, vector, 10, without=NOBODY)

Two databases do the same behind it: SQLite with a search in memory, and PostgreSQL with pgvector.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.collections.approximate import APPROXIMATE_FROM, Approximate
from service.collections.attempts import Attempts
from service.collections.classifiers import Classifiers
from service.collections.clock import SharedClock
from service.collections.database import Database, open_postgres, open_sqlite
from service.collections.exact import Index, InMemory
from service.collections.filters import Filter
from service.collections.items import Items
from service.collections.jobs import Jobs
from service.collections.labels import Labels
from service.collections.records import CollectionNotFound
from service.collections.reembedding import Reembedding
from service.collections.register import Register
from service.collections.uploads import Uploads
from service.collections.windows import Windows

MEMORY_BYTES = 1 << 30
DAY_S = 86_400.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Store:
    """The parts of it; each method is a transaction of its own."""

    database: Database
    collections: Register
    items: Items
    windows: Windows
    labels: Labels
    classifiers: Classifiers
    reembedding: Reembedding
    jobs: Jobs
    attempts: Attempts
    uploads: Uploads
    index: Index
    now: Callable[[], float]

    def expire(self, kept_s: float) -> int:
        """Delete the items that were added longer ago than that; how many there were.

        A line of the log says of each collection how many it has lost.
        """
        old, n_deleted = Filter(created_to=self.now() - kept_s), 0
        for collection in self.collections.all():
            with suppress(CollectionNotFound):  # deleted meanwhile
                n = self.items.delete_matching(collection, old)
                n_deleted += n
                if n:
                    said = {"collection": collection.name, "owner": collection.owner, "items": n}
                    log.info("items expired", **said, kept_days=kept_s / DAY_S)
        return n_deleted

    def ask_the_time(self) -> None:
        """Set the clock by the database, where several machines share it.

        Raises:
            StoreError: it cannot be asked now.
        """
        if isinstance(self.now, SharedClock):
            self.now.ask()

    def close(self) -> None:
        """Let go of the database."""
        self.index.close()
        self.database.close()


def open_store(
    folder: Path,
    *,
    memory_bytes: int = MEMORY_BYTES,
    approximate_from: int = APPROXIMATE_FROM,
    now: Callable[[], float] = time.time,
) -> Store:
    """The store in a folder; what a crash has left half deleted is deleted first.

    Raises:
        StoreError: it cannot be used.
    """
    database = open_sqlite(folder)
    windows = Windows(database)
    exact = InMemory(database, windows, memory_bytes)
    index = Approximate(database, windows, exact, folder, memory_bytes, approximate_from)
    return _opened(database, windows, index, now)


def open_shared_store(address: str, *, now: Callable[[], float] | None = None) -> Store:
    """The store in a PostgreSQL database, which many processes may use; else as `open_store`.

    `now`: else the database's time.

    Raises:
        StoreError: it cannot be used.
    """
    database = open_postgres(address)
    from service.collections.pgvector import Pgvector

    clock = SharedClock(database) if now is None else now
    return _opened(database, Windows(database), Pgvector(database), clock)


def _opened(
    database: Database,
    windows: Windows,
    index: Index,
    now: Callable[[], float],
) -> Store:
    register = Register(database, now, index.drop)
    store = Store(
        database,
        register,
        Items(database, now, index.forget),
        windows,
        Labels(database, now),
        Classifiers(database, now),
        Reembedding(database, register),
        Jobs(database, now),
        Attempts(database, now),
        Uploads(database, now),
        index,
        now,
    )
    store.collections.finish_deletions()
    return store
