"""Which windows to label next: where a classifier hesitates, and what is unlike all others.

`margin` is smallest-margin sampling (Scheffer et al., Active Hidden Markov Models for Information
Extraction, 2001), `diverse` is k-center greedy (Sener and Savarese, arXiv 1708.00489), `mixed` is
the second among the least certain. Letters: `N` windows, `M` labelled ones, `D` embedding dim, `K`
labels.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.windows import unit
from service.collections.records import Doubles, Floats, Integers

Strategy = Literal["margin", "diverse", "mixed"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MAX_CANDIDATES = 50_000  # if there are more, so many are drawn at random
MAX_CENTRES = 512  # labelled windows that others are compared with
SHORTLIST = 10  # times as many as are wanted, among which `mixed` chooses


def margins(probabilities: Floats, *, multi_label: bool) -> Doubles:
    """How sure a classifier is, from 0 on: probabilities (N, K) -> margins (N,).

    The margin is the difference between the two best labels; with `multi_label`, the smallest
    difference between yes and no of any label.
    """
    found = probabilities.astype(np.float64)
    if multi_label or found.shape[1] < 2:
        sure: Doubles = np.abs(2 * found - 1).min(axis=1)
        return sure
    best = np.partition(found, -2, axis=1)[:, -2:]
    apart: Doubles = best[:, 1] - best[:, 0]
    return apart


def candidates(is_heard: NDArray[np.bool_], seed: int) -> Integers:
    """Rows of the windows that nobody has labelled, `MAX_CANDIDATES` at most: (N,) -> rows."""
    silent = np.flatnonzero(~is_heard)
    if len(silent) > MAX_CANDIDATES:
        silent = np.random.default_rng(seed).permutation(silent)[:MAX_CANDIDATES]
    return np.sort(silent).astype(np.int64)


def choose(
    strategy: Strategy,
    n: int,
    margin: Doubles,
    vectors: Floats,
    labelled: Floats,
    seed: int,
) -> Integers:
    """The `n` of N candidates to label next, the most telling first.

    Args:
        strategy: what counts.
        n: how many; all, where there are fewer.
        margin: how sure the classifier is of each (N,).
        vectors: of the candidates (N, D).
        labelled: those of labelled windows (M, D).
        seed: of what is drawn.
    """
    n = min(n, len(margin))
    if not n:
        return np.empty(0, np.int64)
    if strategy == "margin":
        return np.argsort(margin, kind="stable")[:n].astype(np.int64)
    centres = labelled
    if len(labelled) > MAX_CENTRES:
        drawn = np.random.default_rng(seed).permutation(len(labelled))[:MAX_CENTRES]
        centres = labelled[np.sort(drawn)]
    if strategy == "diverse":
        return _spread(n, vectors, centres)
    shortlist = np.argsort(margin, kind="stable")[: SHORTLIST * n]
    return shortlist[_spread(n, vectors[shortlist], centres)].astype(np.int64)


def _spread(n: int, vectors: Floats, centres: Floats) -> Integers:
    """Rows of `n` vectors, each the farthest from all labelled ones and those chosen before it."""
    directions = unit(vectors)
    if len(centres):
        nearest = (directions @ unit(centres).T).max(axis=1)  # cosine to the nearest centre
    else:
        nearest = -(directions @ unit(directions.mean(axis=0)))  # the most usual one first
    chosen: list[int] = []
    for _ in range(n):
        farthest = int(np.argmin(nearest))
        chosen.append(farthest)
        nearest = np.maximum(nearest, directions @ directions[farthest])
        nearest[chosen] = np.inf
    return np.array(chosen, np.int64)
