"""Reads vectors back: all of a collection, those of some items, a random sample.

Letters: `N` windows, `D` embedding dim.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, LargeBinary, Select, func, select, type_coerce

from service.collections.database import Database
from service.collections.records import Collection, Floats, Vectors, handfuls
from service.collections.schema import windows

ROWS = 8192  # that are read at a time
_HEAD_BYTES = 4  # of a vector as PostgreSQL sends it: its length, and two bytes without meaning
_SCATTER, _RANGE = 2654435761, 1 << 32  # spreads numbers in a row over a range (Knuth)


class Windows:
    """The windows of the collections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, collection: Collection) -> Vectors:
        """Every window of a collection, in the order in which they were added."""
        return joined(list(self.after(collection, 0)), collection.terms.dimensions)

    def after(self, collection: Collection, last: int) -> Iterator[Vectors]:
        """The windows behind the number `last`, some at a time, from one state of the database."""
        query = select(windows).where(windows.c.collection == collection.key)
        return self._some_at_a_time(query, collection.terms.dimensions, last)

    def touching(
        self, collection: Collection, item: int, start_s: float | None, end_s: float | None
    ) -> Iterator[Vectors]:
        """The windows of an item that touch a stretch of it, else all; some at a time."""
        mine = windows.c.collection == collection.key, windows.c.item == item
        query = select(windows).where(*mine)
        if start_s is not None and end_s is not None:
            query = query.where(windows.c.start_s < end_s, windows.c.end_s > start_s)
        return self._some_at_a_time(query, collection.terms.dimensions)

    def _some_at_a_time(
        self, query: Select[Any], dimensions: int, last: int = 0
    ) -> Iterator[Vectors]:
        with self._database.read() as connection:
            while True:
                some = query.where(windows.c.id > last).order_by(windows.c.id).limit(ROWS)
                found = fetched(connection, some, dimensions)
                if len(found):
                    last = int(found.windows[-1])
                    yield found
                if len(found) < ROWS:
                    return

    def page(self, collection: Collection, last: int, limit: int) -> Vectors:
        """The next windows behind the number `last`."""
        mine = windows.c.collection == collection.key, windows.c.id > last
        query = select(windows).where(*mine).order_by(windows.c.id).limit(limit)
        with self._database.read() as connection:
            return fetched(connection, query, collection.terms.dimensions)

    def of(self, collection: Collection, keys: Sequence[int]) -> Vectors:
        """The windows of the items of these keys, however many they are."""
        mine = select(windows).where(windows.c.collection == collection.key)
        query, dimensions = mine.order_by(windows.c.id), collection.terms.dimensions
        with self._database.read() as connection:
            parts = [
                fetched(connection, query.where(windows.c.item.in_(some)), dimensions)
                for some in handfuls(keys)
            ]
        return joined(parts, dimensions)

    def sample(self, collection: Collection, n: int) -> Vectors:
        """About `n` windows, always the same ones as long as the collection does not change."""
        share = min(1.0, 1.1 * n / max(1, collection.n_windows))
        mixed = (windows.c.id * _SCATTER) % _RANGE
        query = select(windows).where(
            windows.c.collection == collection.key, mixed < round(share * _RANGE)
        )
        with self._database.read() as connection:
            found = query.order_by(windows.c.id).limit(2 * n)
            return fetched(connection, found, collection.terms.dimensions)


def fetched(connection: Connection, query: Select[Any], dimensions: int) -> Vectors:
    """The windows that a query for rows of the table `windows` finds."""
    is_postgres = connection.dialect.name == "postgresql"
    held: ColumnElement[Any] = windows.c.vector
    if is_postgres:
        held = func.halfvec_send(held, type_=LargeBinary)
    row = windows.c
    blob = type_coerce(held, LargeBinary)
    rows = connection.execute(
        query.with_only_columns(row.id, row.item, row.start_s, row.end_s, blob)
    ).all()
    keys, items, start_s, end_s, blobs = zip(*rows, strict=True) if rows else ((),) * 5
    content = b"".join(blobs)
    matrix = _halves(content, dimensions) if is_postgres else _singles(content, dimensions)
    return Vectors(
        np.array(keys, np.int64),
        np.array(items, np.int64),
        np.array(start_s, np.float64),
        np.array(end_s, np.float64),
        matrix,
    )


def joined(parts: Sequence[Vectors], dimensions: int) -> Vectors:
    """Windows of several parts as one."""
    if not parts:
        none, times = np.empty(0, np.int64), np.empty(0)
        return Vectors(none, none, times, times, np.empty((0, dimensions), np.float32))
    return Vectors(
        np.concatenate([part.windows for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.start_s for part in parts]),
        np.concatenate([part.end_s for part in parts]),
        np.concatenate([part.vectors for part in parts]),
    )


def _singles(content: bytes, dimensions: int) -> Floats:
    return np.frombuffer(content, "<f4").reshape(-1, dimensions)


def _halves(content: bytes, dimensions: int) -> Floats:
    rows = np.frombuffer(content, np.uint8).reshape(-1, _HEAD_BYTES + 2 * dimensions)
    halves = np.ascontiguousarray(rows[:, _HEAD_BYTES:]).view(">f2")
    return halves.astype(np.float32)
