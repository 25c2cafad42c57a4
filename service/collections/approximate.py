"""Search that looks at some of the vectors: faster, and about as good, where there are very many.

The clusters of `clustered.py` only propose windows. Those are then read from the database, with the
filter, and compared exactly, and so are the windows that were added since the clusters were made.
So what is deleted is not found from that moment on. A file of clusters is used if it is undamaged
and none of its windows has been deleted; else it is removed, and made again beside the searches,
which are exact meanwhile.
"""

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Select, func, select

from models.windows import unit
from service.collections.beside import Beside
from service.collections.clustered import (
    CENTRES,
    POINTS,
    About,
    Clustered,
    Damaged,
    about_file,
    read,
)
from service.collections.database import Database
from service.collections.exact import Best, InMemory, at_unit_length
from service.collections.filters import EVERYTHING, Filter, matching, windows_to_search
from service.collections.folder import INDEXES
from service.collections.records import (
    Collection,
    Floats,
    Integers,
    Nearest,
    StoreError,
    Vectors,
    handfuls,
)
from service.collections.schema import items, windows
from service.collections.windows import ROWS, Windows, fetched, joined

APPROXIMATE_FROM = 50_000  # windows: fewer are all looked at, in some tens of ms
SUFFIX = ".clusters"
MORE = 8  # candidates for each hit that is wanted, at first
LEAST, MOST = 64, 32_768  # candidates
FEW = 4096  # windows that a filter leaves are all looked at
GROWTH = 0.02  # of a collection, after which the clusters are made again
LEAST_GROWTH = 5_000  # windows
PAUSE_S, PAUSES = 60.0, 20.0  # before they are made again, and as a multiple of how long that took
CLOSE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Tail:
    """Windows that were added after the clusters were made, at length 1; as of a revision."""

    revision: int
    vectors: Vectors


@dataclass
class _State:
    """What is known of a collection's clusters; `not_before` is when they may be made again."""

    clusters: Clustered | None = None
    tail: _Tail | None = None
    is_on_disk: bool = False
    not_before: float = 0.0


class Approximate:
    """The index of a folder: exact in memory, and with clusters where that is asked for.

    Args:
        database: where the vectors are.
        windows: which reads them.
        exact: answers everything else.
        folder: of the files.
        memory_bytes: of clusters that are kept, of all collections together.
        approximate_from: windows, from which on clusters are made.
        clock: seconds that pass.
    """

    def __init__(
        self,
        database: Database,
        windows: Windows,
        exact: InMemory,
        folder: Path,
        memory_bytes: int,
        approximate_from: int = APPROXIMATE_FROM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._windows, self._exact = database, windows, exact
        self.folder, self._memory_bytes = folder / INDEXES, memory_bytes
        self._approximate_from, self._clock = approximate_from, clock
        self._states: OrderedDict[int, _State] = OrderedDict()
        self._lock = threading.Lock()  # of the states; never held while something is read
        self._making = threading.Lock()  # one at a time
        self._beside = Beside("clusters")
        self._remove_leftovers()

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
        if not exact and self._is_for(collection):
            state = self._ready(collection)
            if state is not None:
                asked = _Asked(collection, unit(query), k, filter, without, by_item)
                found = self._found(asked, *state)
                if found is not None:
                    return found
        return self._exact.nearest(
            collection, query, k, filter=filter, without=without, by_item=by_item
        )

    def prepare(self, collection: Collection) -> bool:
        """Make the clusters of a collection now, or read them; whether it has some."""
        if not self._is_for(collection):
            return False
        with self._making:
            self._renew(collection)
        return self._state(collection).clusters is not None

    def forget(self, key: int) -> None:
        """Remove the file of a collection of which something has been deleted."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:  # it is not used any more, and removed at the next start
            log.warning("an index cannot be removed: %s", error)
        with self._lock:
            if state := self._states.get(key):
                state.is_on_disk = False

    def drop(self, key: int) -> None:
        """Let go of all that is held of a collection, on the disk and in memory."""
        self.forget(key)
        with self._lock:
            self._states.pop(key, None)
        self._exact.drop(key)

    def close(self) -> None:
        """Make no more clusters, and wait a little for those that are being made."""
        self._beside.close()
        self._beside.wait(CLOSE_S)

    def _is_for(self, collection: Collection) -> bool:
        is_large = collection.n_windows >= self._approximate_from
        n_bytes = collection.n_windows * collection.terms.dimensions
        return is_large and n_bytes <= self._memory_bytes and find_spec("faiss") is not None

    def _ready(self, collection: Collection) -> tuple[Clustered, Vectors] | None:
        """The clusters and the windows added since; None while the search has to be exact."""
        state = self._state(collection)
        if state.clusters is None:
            self._renew_beside(collection, state)
            return None
        tail = self._tail_of(collection, state)
        n_now = state.clusters.about.n + len(tail)
        off = len(tail) + abs(n_now - collection.n_windows)  # added since, deleted since
        if off > max(LEAST_GROWTH, GROWTH * n_now) or not state.is_on_disk:
            self._renew_beside(collection, state)
        if tail.vectors.nbytes > self._memory_bytes // 4:
            return None
        return state.clusters, tail

    def _state(self, collection: Collection) -> _State:
        with self._lock:
            state = self._states.setdefault(collection.key, _State())
            self._states.move_to_end(collection.key)
            return state

    def _tail_of(self, collection: Collection, state: _State) -> Vectors:
        assert state.clusters is not None
        tail = state.tail
        if tail is not None and tail.revision == collection.revision:
            return tail.vectors
        parts = [] if tail is None else [tail.vectors]
        last = state.clusters.about.last
        if parts and len(parts[0]):
            last = int(parts[0].windows[-1])
        parts += map(at_unit_length, self._windows.after(collection, last))
        vectors = joined(parts, collection.terms.dimensions)
        state.tail = _Tail(collection.revision, vectors)
        return vectors

    # Searching

    def _found(self, asked: "_Asked", clusters: Clustered, tail: Vectors) -> Nearest | None:
        """The hits; None if too few candidates pass the filter, so that all have to be compared."""
        with self._database.read() as connection:
            if asked.filter:
                n_allowed = _n_windows(connection, asked)
                if n_allowed <= FEW:
                    return self._among_few(connection, asked)
            n, effort = max(LEAST, MORE * asked.k), 1
            score = tail.vectors @ asked.direction
            while True:
                added = tail.windows[_first(score, n)]
                numbers = np.concatenate([clusters.nearest(asked.direction, n, effort), added])
                best = Best(asked.k, asked.by_item)
                for some in handfuls(numbers.tolist()):
                    _compare(connection, asked, asked.allowed.where(windows.c.id.in_(some)), best)
                found = best.result()
                if len(found.items) >= asked.k:
                    return replace(found, is_exact=False)
                if n >= MOST:
                    return None
                n, effort = 4 * n, 4 * effort

    def _among_few(self, connection: Connection, asked: "_Asked") -> Nearest:
        best, last = Best(asked.k, asked.by_item), 0
        while True:
            some = asked.allowed.where(windows.c.id > last).order_by(windows.c.id).limit(ROWS)
            last, n = _compare(connection, asked, some, best)
            if n < ROWS:
                return best.result()

    # Making

    def _renew_beside(self, collection: Collection, state: _State) -> None:
        """Make the clusters again in a thread, unless one is at work or it was done just now."""
        is_time = self._clock() >= state.not_before
        if is_time and self._beside.begin(partial(self._try_to_renew, collection)):
            state.not_before = self._clock() + PAUSE_S

    def _try_to_renew(self, collection: Collection) -> None:
        with self._making:
            try:
                self._renew(collection)
            except _Closed:
                return
            except Exception:
                log.warning("the index of a collection could not be made", exc_info=True)
                self._state(collection).not_before = self._clock() + PAUSE_S

    def _renew(self, collection: Collection) -> None:
        state, started = self._state(collection), self._clock()
        clusters = None if state.clusters else self._from_disk(collection)
        if clusters is None:
            clusters = self._made(collection)
            self._write(clusters)
        pause_s = max(PAUSE_S, PAUSES * (self._clock() - started))
        is_on_disk = self._path(collection.key).is_file()
        with self._lock:
            self._states[collection.key] = _State(
                clusters, None, is_on_disk, self._clock() + pause_s
            )
            self._let_go()

    def _made(self, collection: Collection) -> Clustered:
        terms = collection.terms
        n = int(POINTS * CENTRES * np.sqrt(collection.n_windows))
        sample = self._windows.sample(collection, n).vectors[:n]
        about = About(collection.key, terms.space_id, terms.dimensions, 0, collection.n_windows)
        return Clustered.of(sample, self._all(collection), about)

    def _all(self, collection: Collection) -> Iterator[Vectors]:
        for part in self._windows.after(collection, 0):
            if self._beside.is_closed:
                raise _Closed
            yield part

    def _write(self, clusters: Clustered) -> None:
        """Write the file, and remove it again if one of its windows has been deleted meanwhile."""
        path = self._path(clusters.about.collection)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            clusters.write(path)
        except (OSError, RuntimeError) as error:  # what faiss raises
            log.warning("the index of a collection stays in memory alone: %s", error)
        if not self._are_all_there(clusters.about):
            path.unlink(missing_ok=True)

    def _from_disk(self, collection: Collection) -> Clustered | None:
        """The clusters in the file; it is removed if it is damaged or some windows are gone."""
        path = self._path(collection.key)
        try:
            clusters = read(path)
            terms, about = collection.terms, clusters.about
            is_its = (about.collection, about.space_id, about.dimensions) == (
                collection.key,
                terms.space_id,
                terms.dimensions,
            )
            if is_its and self._are_all_there(about):
                return clusters
        except FileNotFoundError:
            return None
        except Damaged as damage:
            log.warning("an index is made again: %s", damage)
        path.unlink(missing_ok=True)
        return None

    def _are_all_there(self, about: About) -> bool:
        """Whether no window of a file was deleted: numbers are not used again, so a count tells."""
        row = windows.c
        query = select(func.count()).where(row.collection == about.collection, row.id <= about.last)
        with self._database.read() as connection:
            n_there: int = connection.execute(query).scalar_one()
        return n_there == about.n

    def _let_go(self) -> None:
        """Keep the clusters that were used last."""
        kept = 0
        for state in reversed(self._states.values()):
            if state.clusters is not None:
                kept += state.clusters.n_bytes
                if kept > max(self._memory_bytes, state.clusters.n_bytes):
                    state.clusters = state.tail = None

    def _remove_leftovers(self) -> None:
        """Remove files that a kill has left half written, or of what has been deleted since."""
        for path in self.folder.glob("*.tmp"):
            if not _is_alive(path.name.split(".")[-2]):
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                try:
                    is_whole = self._are_all_there(about_file(path))
                except (Damaged, StoreError):
                    is_whole = False
                if not is_whole:
                    path.unlink(missing_ok=True)

    def _path(self, key: int) -> Path:
        return self.folder / f"{key}{SUFFIX}"


class _Closed(Exception):
    """The store is closed while clusters are made."""


@dataclass(frozen=True)
class _Asked:
    """One search; `direction` (D,) is of length 1."""

    collection: Collection
    direction: Floats
    k: int
    filter: Filter
    without: Integers
    by_item: bool

    @property
    def allowed(self) -> Select[tuple[int]]:
        """The windows that may be found."""
        query = select(windows.c.id)
        return windows_to_search(query, self.collection, self.filter, self.without)


def _compare(
    connection: Connection, asked: _Asked, query: Select[tuple[int]], best: Best
) -> tuple[int, int]:
    """Compare the windows that a query finds; the number of the last, and how many there were."""
    some = fetched(connection, query, asked.collection.terms.dimensions)
    if not len(some):
        return 0, 0
    at_one = at_unit_length(some)
    best.add(at_one, at_one.vectors @ asked.direction, np.ones(len(some), bool))
    return int(some.windows[-1]), len(some)


def _n_windows(connection: Connection, asked: _Asked) -> int:
    """How many windows pass the filter."""
    keys = matching(asked.collection, asked.filter)
    query = select(func.coalesce(func.sum(items.c.n_windows), 0)).where(items.c.id.in_(keys))
    return int(connection.execute(query).scalar_one())


def _first(score: Floats, n: int) -> Integers:
    """Rows of the `n` highest scores, in any order."""
    rows: Integers = np.argpartition(-score, n - 1)[:n] if len(score) > n else np.arange(len(score))
    return rows


def _is_alive(number: str) -> bool:
    """Whether another process with this id runs."""
    try:
        os.kill(int(number), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return int(number) != os.getpid()
