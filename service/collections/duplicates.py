"""Near-duplicates: the same recording again, louder, shorter, or through another codec.

How close duplicates come depends on the sound and on the collection, so there is no fixed bound. A
pair is measured by how much closer it is than the usual neighbours of both: Fisher's z of its
cosine, less that of the sixth closest window of other items, so that up to five copies of one
recording do not hide each other. What the best pair of an item reaches by chance is taken to be
normally distributed; its mean and deviation are estimated by medians over all items, which
duplicates hardly move as long as most items have none. Letters: `N` windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from models.windows import unit
from service.collections.records import Doubles, Floats, Integers, StoreError, Vectors

MAX_WINDOWS = 10_000  # every one is compared with every other
ROWS = 256  # that are compared with all at a time
NEIGHBOUR = 6  # the closest window but five: what a pair is compared with
CEILING = 1 - 1e-6  # of a cosine, whose z is finite
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
LEAST_SPREAD = 0.02  # of z: where neighbours are all alike there is no room for a bound
LEAST_ITEMS = 16  # that a spread can be told from
FEW = NormalDist(1.5, 0.1)  # of z where there are fewer: only what is all but the same


class TooManyWindows(StoreError):
    """More than are compared in one request."""

    kind = "too-many-to-compare"


@dataclass(frozen=True)
class Duplicate:
    """Two items with their closest windows; `confidence` that they are no mere neighbours."""

    items: tuple[int, int]
    start_s: tuple[float, float]
    score: float
    confidence: float


def find_duplicates(windows: Vectors, confidence: float) -> list[Duplicate]:
    """Pairs of items that are near-duplicates with that confidence, from 0.5 on; surest first.

    Raises:
        TooManyWindows: there are more than `MAX_WINDOWS`.
    """
    check_few_windows(len(windows))
    if not len(windows):
        return []
    items, vectors = windows.items, unit(windows.vectors)
    is_few = len(np.unique(items)) < LEAST_ITEMS
    usual = np.zeros(len(items), np.float32) if is_few else _usual_closeness(vectors, items)
    nearness = _Nearness(vectors, items, usual)
    spread = FEW if is_few else _spread(nearness.best(), items)
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    for one, other, value in nearness.beyond(spread.inv_cdf(confidence)):
        pair = int(items[one]), int(items[other])
        if pair[0] < pair[1] and value > best.get(pair, (-np.inf,))[0]:
            best[pair] = value, one, other
    found = [
        Duplicate(
            pair,
            (float(windows.start_s[one]), float(windows.start_s[other])),
            min(1.0, float(vectors[one] @ vectors[other])),
            spread.cdf(value),
        )
        for pair, (value, one, other) in best.items()
    ]
    return sorted(found, key=lambda pair: (-pair.confidence, -pair.score, pair.items))


def check_few_windows(n_windows: int) -> None:
    """Refuse more windows than are compared, before they are read.

    Raises:
        TooManyWindows: there are more than `MAX_WINDOWS`.
    """
    if n_windows > MAX_WINDOWS:
        raise TooManyWindows(
            f"{n_windows} windows would be compared with each other; at most {MAX_WINDOWS} are: "
            "use a filter.",
            limit=MAX_WINDOWS,
            observed=n_windows,
            unit="windows",
        )


class _Nearness:
    """How much closer each window is to those of other items than is usual for either."""

    def __init__(self, vectors: Floats, items: Integers, usual: Floats) -> None:
        self._vectors, self._items, self._usual = vectors, items, usual

    def best(self) -> Floats:
        """The highest value of each window (N,)."""
        return np.concatenate([rows.max(axis=1) for _, rows in self._blocks()])

    def beyond(self, least: float) -> Iterator[tuple[int, int, float]]:
        """The pairs of windows that reach at least so much."""
        for first, rows in self._blocks():
            for row, column in np.argwhere(rows >= least).tolist():
                yield first + row, column, float(rows[row, column])

    def _blocks(self) -> Iterator[tuple[int, Floats]]:
        for first, z in _closeness(self._vectors, self._items):
            rows = self._usual[first : first + len(z), None]
            yield first, z - np.maximum(rows, self._usual[None])


def _usual_closeness(vectors: Floats, items: Integers) -> Floats:
    """Fisher's z of each window to the sixth closest window of other items (N,)."""
    place = -min(NEIGHBOUR, len(vectors) - 1)
    parts = [np.partition(z, place, axis=1)[:, place] for _, z in _closeness(vectors, items)]
    return np.concatenate(parts)


def _spread(best: Floats, items: Integers) -> NormalDist:
    """The distribution of the best value of each item."""
    order = np.argsort(items, kind="stable")
    starts = np.flatnonzero(np.diff(items[order], prepend=-1))
    each: Doubles = np.maximum.reduceat(best[order], starts).astype(np.float64)
    median = float(np.median(each))
    deviation = MAD_TO_DEVIATION * float(np.median(np.abs(each - median)))
    return NormalDist(median, max(LEAST_SPREAD, deviation))


def _closeness(vectors: Floats, items: Integers) -> Iterator[tuple[int, Floats]]:
    """Fisher's z of some windows at a time to all, the least to those of the same item."""
    least = np.float32(np.arctanh(-CEILING))
    for first in range(0, len(vectors), ROWS):
        cosines = vectors[first : first + ROWS] @ vectors.T
        z = np.arctanh(np.clip(cosines, -CEILING, CEILING))
        own = items[first : first + ROWS, None] == items[None]
        yield first, np.where(own, least, z)
