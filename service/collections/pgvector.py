"""Search by PostgreSQL's extension pgvector, on half-precision vectors.

Exact where it is asked for and where there are not very many; else along a graph (HNSW), which is
scanned on until enough windows pass the filter. https://github.com/pgvector/pgvector
"""

from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Float, Label, Select, cast, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on

from service.collections.database import Database
from service.collections.filters import EVERYTHING, Filter, windows_to_search
from service.collections.graphs import Graphs, of_size
from service.collections.halves import HalfVec
from service.collections.records import Collection, Floats, Integers, Nearest
from service.collections.schema import windows

APPROXIMATE_FROM = 50_000  # windows: fewer are looked at one by one, in some tens of ms
MAX_GRAPH_DIMENSIONS = 4000  # of a half vector in an HNSW index
_MAX_EF, _MAX_SCANNED = 1000, 200_000
_MORE = 8  # windows for each item that is wanted, at first


class Pgvector:
    """The index of a PostgreSQL database.

    Args:
        database: where the vectors are.
        approximate_from: windows of a collection, from which on a graph is made.
    """

    def __init__(self, database: Database, approximate_from: int = APPROXIMATE_FROM) -> None:
        self._database, self._approximate_from = database, approximate_from
        self._graphs = Graphs(database)

    def nearest(
        self,
        collection: Collection,
        query: Floats,
        k: int,
        *,
        filter: Filter = EVERYTHING,
        without: Integers,
        by_item: bool = False,
        exact: bool = True,
    ) -> Nearest:
        """See `exact.Index`."""
        row = windows.c
        query_for_rows = select(row.id, row.item, row.start_s, row.end_s)
        chosen = windows_to_search(query_for_rows, collection, filter, without)
        has_graph = not exact and self._has_graph(collection)
        with self._database.read() as connection:
            if has_graph:
                return _approximate(connection, collection, chosen, query, k, by_item)
            return _exact(connection, chosen, query, k, by_item)

    def prepare(self, collection: Collection) -> bool:
        """Make the graph of a collection now, if it has none; whether it has one.

        Raises:
            StoreError: it could not be made.
        """
        dimensions = collection.terms.dimensions
        if not self._is_for(collection):
            return False
        if not self._graphs.has(dimensions):
            self._graphs.make(dimensions)
        return self._graphs.has(dimensions)

    def forget(self, key: int) -> None:
        """Nothing is kept here."""

    def drop(self, key: int) -> None:
        """Nothing is kept here."""

    def close(self) -> None:
        """Give up the graph that is being made."""
        self._graphs.close()

    def _has_graph(self, collection: Collection) -> bool:
        """Whether there is one; it is made beside the searches, which are exact meanwhile."""
        if not self._is_for(collection):
            return False
        has_graph = self._graphs.has(collection.terms.dimensions)
        if not has_graph:
            self._graphs.make_beside(collection.terms.dimensions)
        return has_graph

    def _is_for(self, collection: Collection) -> bool:
        is_large = collection.n_windows >= self._approximate_from
        return is_large and collection.terms.dimensions <= MAX_GRAPH_DIMENSIONS


def _exact(
    connection: Connection, chosen: Select[Any], query: Floats, k: int, by_item: bool
) -> Nearest:
    distance = _distance(windows.c.vector, query)
    timed = chosen.add_columns(distance)
    if by_item:
        timed = timed.ext(distinct_on(windows.c.item))
        timed = timed.order_by(windows.c.item, distance, windows.c.id)
    rows = timed.subquery()
    best = select(rows).order_by(rows.c.distance, rows.c.id).limit(k)
    return _nearest(connection.execute(best).all(), is_exact=True)


def _approximate(
    connection: Connection,
    collection: Collection,
    chosen: Select[Any],
    query: Floats,
    k: int,
    by_item: bool,
) -> Nearest:
    dimensions = collection.terms.dimensions
    distance = _distance(cast(windows.c.vector, HalfVec(dimensions)), query)
    timed = chosen.add_columns(distance).where(text(of_size(dimensions))).order_by(distance)
    n = _MORE * k if by_item else k
    while True:
        _scan_on(connection, n)
        rows = connection.execute(timed.limit(n)).all()
        found = _nearest(rows, is_exact=False)
        if not by_item:
            return found
        best = np.sort(np.unique(found.items, return_index=True)[1])
        if len(best) >= k or len(rows) < n or n >= _MAX_SCANNED:
            return _some(found, best[:k])
        n *= 4


def _scan_on(connection: Connection, n: int) -> None:
    """Let the search go along the graph until it has `n` windows that pass the filter."""
    for name, value in (
        ("hnsw.iterative_scan", "strict_order"),
        ("hnsw.ef_search", min(_MAX_EF, max(100, n))),
        ("hnsw.max_scan_tuples", _MAX_SCANNED),
    ):
        connection.execute(select(func.set_config(name, str(value), True)))


def _distance(vector: ColumnElement[Any], query: Floats) -> Label[float]:
    """One minus the cosine."""
    bound = cast(query, HalfVec(len(query)))
    return vector.op("<=>", return_type=Float(53))(bound).label("distance")


def _nearest(rows: Any, *, is_exact: bool) -> Nearest:
    keys, items, start_s, end_s, distance = zip(*rows, strict=True) if rows else ((),) * 5
    score = 1 - np.array(distance, np.float32)
    return Nearest(
        np.array(keys, np.int64),
        np.array(items, np.int64),
        np.array(start_s, np.float64),
        np.array(end_s, np.float64),
        np.clip(score, -1, 1),
        is_exact,
    )


def _some(found: Nearest, chosen: Integers) -> Nearest:
    return Nearest(
        found.windows[chosen],
        found.items[chosen],
        found.start_s[chosen],
        found.end_s[chosen],
        found.score[chosen],
        found.is_exact,
    )
