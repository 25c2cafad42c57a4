"""Search by example: some sounds like it, some unlike it -> the items that come closest.

The query is one direction: the mean of the positive examples, less half the mean of the negative
ones, each at length 1 before. The score is the cosine to it, 1 for the same. What a score means
depends on the collection, so each comes with the share of random pairs of its items that lie
further apart. Letters: `N` windows, `P` examples, `D` embedding dim.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from models.windows import unit
from service.collections.filters import EVERYTHING, Filter
from service.collections.records import Collection, Doubles, Floats, Item, StoreError, Vectors
from service.collections.store import Store

NEGATIVE_SHARE = 0.5
PAIRS = 4096  # of which the spread of scores is made
SAMPLE = 2048  # windows, from which the pairs are drawn
STALE = 0.1  # by this share a collection may grow or shrink before new pairs are drawn
KEPT = 256  # collections whose pairs are kept
SAME_S = 1e-3  # by which the times that a client sends for a window may be off


class NoDirection(StoreError):
    """The examples cancel each other out, or there are none."""

    kind = "bad-example"


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        positive: examples of what is wanted (P, D).
        negative: examples of what is not (P, D).
        without: keys of items that are not to be found, such as the examples' own.
        top_k: how many at the most.
        by_item: the best window of each item, else all windows.
        exact: rather than about as good, and faster.
        least_percentile: leave out what scores less than this percentage of random pairs do.
    """

    positive: Floats
    negative: Floats | None = None
    without: Sequence[int] = ()
    filter: Filter = EVERYTHING
    top_k: int = 10
    by_item: bool = True
    exact: bool = True
    least_percentile: float | None = None


@dataclass(frozen=True)
class Hit:
    """A window that was found: its item, its times, how close it comes.

    `percentile` is the percentage of random pairs of the collection that score less; None where
    there are too few items to tell.
    """

    item: Item
    start_s: float
    end_s: float
    score: float
    percentile: float | None


@dataclass(frozen=True)
class Found:
    """The hits, best first, and whether every window was looked at."""

    hits: list[Hit]
    is_exact: bool


class Searcher:
    """Searches the collections of a store; safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._backgrounds: OrderedDict[int, tuple[int, Doubles]] = OrderedDict()
        self._lock = Lock()

    def find(self, collection: Collection, query: Query) -> Found:
        """The items, or windows, that come closest.

        Raises:
            NoDirection: the examples cancel each other out.
            CollectionNotFound: it has been deleted, or moved to another model, meanwhile.
        """
        nearest = self._store.index.nearest(
            collection,
            direction(query.positive, query.negative),
            query.top_k,
            filter=query.filter,
            without=np.array(query.without, np.int64),
            by_item=query.by_item,
            exact=query.exact,
        )
        items = self._store.items.by_key(collection, np.unique(nearest.items).tolist())
        background = self.background(collection)
        hits = [
            Hit(items[item], start_s, end_s, score, percentile(background, score))
            for item, start_s, end_s, score in zip(
                nearest.items.tolist(),
                nearest.start_s.tolist(),
                nearest.end_s.tolist(),
                nearest.score.tolist(),
                strict=True,
            )
            if item in items  # and not deleted meanwhile
        ]
        least = query.least_percentile
        kept = [hit for hit in hits if least is None or (hit.percentile or 0.0) >= least]
        return Found(kept, nearest.is_exact)

    def example(
        self, collection: Collection, id: str, start_s: float | None, end_s: float | None
    ) -> tuple[Floats, int]:
        """The vector (D,) of an item, or of a stretch of it, and the item's key.

        A stretch with the times of a window, such as one that was found, stands for that window;
        any other is the mean of all windows that touch it.

        Raises:
            ItemNotFound: there is no such item.
            NoDirection: no window of it touches the stretch.
        """
        item = self._store.items.get(collection, id)
        total, n = np.zeros(collection.terms.dimensions), 0
        for some in self._store.windows.touching(collection, item.key, start_s, end_s):
            if start_s is not None and end_s is not None:
                off_s = np.maximum(np.abs(some.start_s - start_s), np.abs(some.end_s - end_s))
                if (same := off_s < SAME_S).any():
                    total, n = unit(some.vectors[same][:1]).sum(axis=0), 1
                    break
            total, n = total + unit(some.vectors).sum(axis=0), n + len(some)
        if not n:
            raise NoDirection(
                f"The item {id!r} lasts {item.duration_s:g} s: nothing of it lies between "
                f"{start_s} and {end_s} s."
            )
        mean: Floats = (total / n).astype(np.float32)
        return mean, item.key

    def background(self, collection: Collection) -> Doubles:
        """The scores of random pairs of windows of different items, in ascending order."""
        n = collection.n_windows
        with self._lock:
            drawn_at, scores = self._backgrounds.get(collection.key, (-1, np.empty(0)))
        if drawn_at < 0 or abs(n - drawn_at) > STALE * drawn_at:
            scores = random_scores(self._store.windows.sample(collection, SAMPLE))
            with self._lock:
                self._backgrounds[collection.key] = n, scores
                while len(self._backgrounds) > KEPT:
                    self._backgrounds.popitem(last=False)
        return scores


def direction(positive: Floats, negative: Floats | None = None) -> Floats:
    """What to search for (D,), at length 1: examples (P, D) of what is wanted and what is not.

    Raises:
        NoDirection: nothing is left.
    """
    towards = unit(positive).mean(axis=0)
    if negative is not None and len(negative):
        towards = towards - NEGATIVE_SHARE * unit(negative).mean(axis=0)
    if not np.linalg.norm(towards) > 1e-6:
        raise NoDirection("The examples cancel each other out: leave out some.")
    return unit(towards)


def random_scores(sample: Vectors, n_pairs: int = PAIRS, seed: int = 0) -> Doubles:
    """The cosines of random pairs of windows of different items, in ascending order."""
    if len(sample) < 2:
        return np.empty(0)
    rng = np.random.default_rng(seed)
    one, other = rng.integers(len(sample), size=(2, 2 * n_pairs))
    differ = np.flatnonzero(sample.items[one] != sample.items[other])[:n_pairs]
    vectors = unit(sample.vectors)
    scores = np.einsum("nd,nd->n", vectors[one[differ]], vectors[other[differ]])
    return np.sort(scores.astype(np.float64))


def percentile(background: Doubles, score: float) -> float | None:
    """The percentage of random pairs that score less."""
    if not len(background):
        return None
    below = np.searchsorted(background, score)
    return round(100.0 * float(below) / len(background), 2)
