"""Exact search in memory: the unit vectors of a collection, kept in step with the database.

One product of matrices a block; right and fast as long as the vectors fit into memory. What does
not fit is read again at every search, some rows at a time. Letters: `N` windows, `D` embedding dim.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.windows import unit
from service.collections.database import Database
from service.collections.filters import EVERYTHING, Filter, matching
from service.collections.records import Collection, Floats, Integers, Nearest, Vectors
from service.collections.schema import items
from service.collections.windows import ROWS, Windows, joined


class Index(Protocol):
    """Finds the windows that lie nearest to a vector."""

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
        """The `k` windows with the highest cosine to `query` (D,), best first.

        Args:
            collection: where to look.
            query: not all zeros.
            k: how many at the most.
            filter: only windows of items for which it holds.
            without: not those of the items of these keys.
            by_item: the best window of each item alone.
            exact: rather than about as good, and faster where there are very many.
        """
        ...

    def prepare(self, collection: Collection) -> bool:
        """Make now what approximate searches need; whether this collection is searched so."""
        ...

    def forget(self, key: int) -> None:
        """Note that items of the collection with this key have been deleted."""
        ...

    def drop(self, key: int) -> None:
        """Let go of all that is held of the collection with this key: it has been deleted."""
        ...

    def close(self) -> None:
        """End the work beside the searches."""
        ...


@dataclass(frozen=True)
class _Held:
    """The windows of a collection as of a revision, in memory, with vectors of length 1."""

    revision: int
    blocks: tuple[Vectors, ...]

    @property
    def last(self) -> int:
        return int(self.blocks[-1].windows[-1]) if self.blocks else 0

    @property
    def n_bytes(self) -> int:
        return sum(block.vectors.nbytes for block in self.blocks)


class InMemory:
    """Every search looks at every vector.

    Args:
        database: where they are.
        windows: which reads them.
        memory_bytes: of vectors that are kept, of all collections together.
    """

    def __init__(self, database: Database, windows: Windows, memory_bytes: int) -> None:
        self._database, self._windows = database, windows
        self._memory_bytes = memory_bytes
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._lock = Lock()  # of the two tables; never held while something is read
        self._reading: dict[int, Lock] = {}

    def nearest(
        self,
        collection: Collection,
        query: Floats,
        k: int,
        *,
        filter: Filter = EVERYTHING,
        without: Integers,
        by_item: bool = False,
    ) -> Nearest:
        """See `Index`; always exact."""
        allowed = self._allowed(collection, filter) if filter else None
        best = Best(k, by_item)
        direction = unit(query)
        for block in self._blocks(collection):
            score = block.vectors @ direction
            chosen = _chosen(block.items, allowed, without)
            best.add(block, score, chosen)
        return best.result()

    def drop(self, key: int) -> None:
        """See `Index`."""
        with self._lock:
            self._held.pop(key, None)
            self._reading.pop(key, None)

    def _blocks(self, collection: Collection) -> Iterable[Vectors]:
        n_bytes = 4 * collection.n_windows * collection.terms.dimensions
        if n_bytes > self._memory_bytes:
            self.drop(collection.key)
            return map(at_unit_length, self._windows.after(collection, 0))
        with self._lock:
            reading = self._reading.setdefault(collection.key, Lock())
        with reading:  # one reads, the others wait and find it there
            return self._in_step(collection).blocks

    def _in_step(self, collection: Collection) -> _Held:
        with self._lock:
            held = self._held.get(collection.key)
            if held is not None:
                self._held.move_to_end(collection.key)
        if held is None or held.revision < collection.revision:
            held = self._caught_up(collection, held or _Held(-1, ()))
            self._keep(collection.key, held)
        return held

    def _caught_up(self, collection: Collection, held: _Held) -> _Held:
        """The windows held until now, without those deleted since and with those added since."""
        present = self._allowed(collection, EVERYTHING)
        kept = [block.where(_is_in(block.items, present)) for block in held.blocks]
        new = map(at_unit_length, self._windows.after(collection, held.last))
        blocks = _filled(kept, new, collection.terms.dimensions)
        return _Held(collection.revision, tuple(blocks))

    def _keep(self, key: int, held: _Held) -> None:
        with self._lock:
            self._held[key] = held
            self._held.move_to_end(key)
            while sum(each.n_bytes for each in self._held.values()) > self._memory_bytes:
                self._held.popitem(last=False)

    def _allowed(self, collection: Collection, filter: Filter) -> Integers:
        query = matching(collection, filter).order_by(items.c.id)
        with self._database.read() as connection:
            return np.array(connection.execute(query).scalars().all(), np.int64)


def at_unit_length(block: Vectors) -> Vectors:
    """The same windows, their vectors at length 1."""
    return Vectors(block.windows, block.items, block.start_s, block.end_s, unit(block.vectors))


def _filled(kept: Iterable[Vectors], new: Iterable[Vectors], dimensions: int) -> Iterator[Vectors]:
    """The same windows in blocks of `ROWS`, so that small additions do not make small blocks."""
    held: list[Vectors] = []
    for part in (*kept, *new):
        held.append(part)
        while sum(map(len, held)) >= ROWS:
            whole = joined(held, dimensions)
            yield whole.where(np.arange(len(whole)) < ROWS)
            held = [whole.where(np.arange(len(whole)) >= ROWS)]
    if sum(map(len, held)):
        yield joined(held, dimensions)


def _chosen(found: Integers, allowed: Integers | None, without: Integers) -> NDArray[np.bool_]:
    chosen = np.ones(len(found), bool) if allowed is None else _is_in(found, allowed)
    return chosen & ~_is_in(found, np.sort(without)) if len(without) else chosen


def _is_in(values: Integers, among: Integers) -> NDArray[np.bool_]:
    """Which of the values are among others, which are sorted."""
    if not len(among):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(among, values), len(among) - 1)
    found: NDArray[np.bool_] = among[places] == values
    return found


class Best:
    """The best windows of several blocks."""

    def __init__(self, k: int, by_item: bool) -> None:
        self._k, self._by_item = k, by_item
        self._parts: list[tuple[Vectors, Floats]] = []

    def add(self, block: Vectors, score: Floats, chosen: NDArray[np.bool_]) -> None:
        """Take in a block; only what may be among the best in the end is kept."""
        rows = np.flatnonzero(chosen)
        if self._by_item:
            rows = rows[_best_of_each(block.items[rows], score[rows])]
        if len(rows) > self._k:
            rows = rows[np.argpartition(-score[rows], self._k - 1)[: self._k]]
        without_vectors = Vectors(
            block.windows[rows],
            block.items[rows],
            block.start_s[rows],
            block.end_s[rows],
            np.empty((len(rows), 0), np.float32),
        )
        self._parts.append((without_vectors, score[rows]))

    def result(self) -> Nearest:
        """The best of all, best first; of equals the one that was added first."""
        rows = joined([part for part, _ in self._parts], 0)
        score = np.concatenate([s for _, s in self._parts] or [np.empty(0, np.float32)])
        order = np.lexsort((rows.windows, -score))
        if self._by_item:  # an item may reach over several blocks
            order = order[np.sort(np.unique(rows.items[order], return_index=True)[1])]
        best = rows.where(order[: self._k])
        score = score[order[: self._k]]
        return Nearest(best.windows, best.items, best.start_s, best.end_s, np.clip(score, -1, 1))


def _best_of_each(items: Integers, score: Floats) -> Integers:
    """The row with the highest score of each item."""
    order = np.lexsort((-score, items))
    _, first = np.unique(items[order], return_index=True)
    best: Integers = order[first]
    return best
