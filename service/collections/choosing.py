"""Which windows to label next: where a classifier hesitates, and what is unlike all others.

`margin` is smallest-margin sampling (Scheffer et al., Active Hidden Markov Models for Information
Extraction, 2001), `diverse` is k-center greedy (Sener and Savarese, arXiv 1708.00489), `mixed` is
the second among the least certain. Letters: `N` windows, `M` labelled ones, `D` embedding dim, `K`
labels.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from service.collections.records import Doubles, Floats, Integers

Strategy = Literal["margin", "diverse", "mixed"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MAX_CANDIDATES = 50_000  # of more, so many are drawn
MAX_CENTRES = 512  # labelled windows that others are compared with
SHORTLIST = 10  # times as many as are wanted: what `mixed` chooses among


def margins(probabilities: Floats, *, multi_label: bool) -> Doubles:
    """How sure a classifier is: the two best labels' difference, (N, K) -> (N,); 0 is not at all.

    Where each label holds by itself, the smallest difference between yes and no of any label.
    """
    found = probabilities.astype(np.float64)
    if multi_label or found.shape[1] < 2:
        sure: Doubles = np.abs(2 * found - 1).min(axis=1)
        return sure
    best = np.partition(found, -2, axis=1)[:, -2:]
    apart: Doubles = best[:, 1] - best[:, 0]
    return apart


def candidates(is_heard: NDArray[np.bool_], seed: int) -> Integers:
    """Windows of which nothing is said, all or as many as are looked at: (N,) -> numbers."""
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
    """Each time the vector that lies farthest from all labelled and chosen ones."""
    unit = _unit(vectors)
    nearest = np.full(len(unit), -1.0, np.float32)  # cosine to the nearest centre
    if len(centres):
        nearest = (unit @ _unit(centres).T).max(axis=1)
    else:
        nearest = -(unit @ _unit(unit.mean(axis=0)[None])[0])  # the most usual one first
    chosen: list[int] = []
    for _ in range(n):
        farthest = int(np.argmin(nearest))
        chosen.append(farthest)
        nearest = np.maximum(nearest, unit @ unit[farthest])
        nearest[chosen] = np.inf
    return np.array(chosen, np.int64)


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit
