"""Windows that must be learnt from or tested on together: those of one recording, and twins.

Letters: `N` windows, `D` embedding dim, `K` labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.windows import unit
from service.collections.records import Floats, Integers

SAME_COSINE = 0.999  # from here on two windows sound the same
MAX_COMPARED = 5_000  # windows, all with all; of more only equal vectors are found
MAX_PAIRS = 1_000
PARTS = 5  # of a recording that is the only one of a label
ROWS = 512  # that are compared at a time


@dataclass(frozen=True)
class Alike:
    """Pairs of windows that sound the same, each by two rows, the first the smaller."""

    pairs: tuple[tuple[int, int], ...]


def alike(vectors: Floats) -> Alike:
    """Windows (N, D) that sound the same; of many such, each with the first of them."""
    found = _equal(vectors)
    if len(vectors) <= MAX_COMPARED:
        found |= _near(vectors)
    return Alike(tuple(sorted(found)))


def _equal(vectors: Floats) -> set[tuple[int, int]]:
    first: dict[bytes, int] = {}
    pairs = set()
    for row, vector in enumerate(vectors):
        before = first.setdefault(vector.tobytes(), row)
        if before != row:
            pairs.add((before, row))
    return pairs


def _near(vectors: Floats) -> set[tuple[int, int]]:
    directions = unit(vectors)
    pairs: set[tuple[int, int]] = set()
    for begin in range(0, len(directions), ROWS):
        cosines = directions[begin : begin + ROWS] @ directions[: begin + ROWS].T
        later, earlier = np.nonzero(np.tril(cosines >= SAME_COSINE, begin - 1))
        _, first = np.unique(later, return_index=True)  # one pair a window is enough
        found = zip(earlier[first].tolist(), (later[first] + begin).tolist(), strict=True)
        pairs.update(found)
        if len(pairs) > MAX_PAIRS:
            break
    return pairs


def without_leaks(
    items: Integers, twins: Alike, holds: NDArray[np.bool_], known: NDArray[np.bool_]
) -> tuple[Integers, Sequence[int]]:
    """The group of each window (N,), and the items whose group was torn.

    A group is a recording, together with the recordings that hold twins of its windows. Where a
    label, or its absence, would have a single group, nothing could be held out: that group is torn
    into stretches.
    """
    groups = _joined(items, twins)
    torn: set[int] = set()
    for k in range(holds.shape[1]):
        for mine in (known[:, k] & holds[:, k], known[:, k] & ~holds[:, k]):
            rows = np.flatnonzero(mine)
            if len(rows) and len(np.unique(groups[rows])) == 1:
                torn.update(np.unique(items[rows]).tolist())
                part = np.arange(len(rows)) * PARTS // len(rows)
                groups[rows] = groups.max() + 1 + part
    return groups, sorted(torn)


def _joined(items: Integers, twins: Alike) -> Integers:
    """Numbers of the recordings (N,), the same for those that share twins."""
    keys, number = np.unique(items, return_inverse=True)
    root = np.arange(len(keys))

    def top(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = int(root[one])
        return one

    for a, b in twins.pairs:
        root[top(int(number[a]))] = top(int(number[b]))
    return np.array([top(one) for one in number.tolist()], np.int64)
