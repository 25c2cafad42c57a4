"""What a probe's answers are worth: accuracy or mAP, a class at a time, and how sure that is.

Letters: `N` test clips, `K` classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 1_000
CONFIDENCE = 0.95
Floats = NDArray[np.floating]


def measure(labels: NDArray[np.bool_], scores: Floats, several: bool) -> float:
    """Accuracy, or where clips have several labels the mAP, of (N, K) and (N, K); in [0, 1]."""
    if several:
        return float(np.nanmean(average_precisions(labels, scores)))
    return float(hits(labels, scores).mean())


def hits(labels: NDArray[np.bool_], scores: Floats) -> NDArray[np.bool_]:
    """Whether the best-scored class is one that the clip has: (N,)."""
    best: NDArray[np.bool_] = labels[np.arange(len(labels)), scores.argmax(1)]
    return best


def average_precisions(labels: NDArray[np.bool_], scores: Floats) -> NDArray[np.float64]:
    """Average precision of each class, (K,); not a number where no clip has it.

    That of scikit-learn, for all classes at once: the precision down to each clip that has the
    class, equal scores counted together, over such clips.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    has, score = np.take_along_axis(labels, order, 0), np.take_along_axis(scores, order, 0)
    rank = np.arange(1, len(labels) + 1)[:, None]
    precision = has.cumsum(0) / rank
    ends = np.ones_like(has)  # whether a row is the last of its score
    ends[:-1] = score[:-1] != score[1:]
    last = np.minimum.accumulate(np.where(ends, rank - 1, len(labels))[::-1], 0)[::-1]
    counted = np.take_along_axis(precision, last, 0) * has
    n_having = labels.sum(0)
    known = np.where(n_having > 0, n_having, np.nan)
    result: NDArray[np.float64] = counted.sum(0) / known
    return result


def confusion(labels: NDArray[np.bool_], scores: Floats) -> NDArray[np.int64]:
    """How many clips of each class (row) were taken for each class (column): (K, K)."""
    n_classes = labels.shape[1]
    cells = labels.argmax(1) * n_classes + scores.argmax(1)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def interval_of_mean(
    values: Floats, groups: NDArray[np.str_] | None = None, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the mean of one value a clip, (N,), by the bootstrap over clips.

    Clips of one group are drawn together, since they are not independent: with speakers as groups
    the interval tells of other speakers (and of few speakers not much). It does not tell of other
    training clips.
    """
    members = _members(len(values), groups)
    sums, sizes = np.array([(values[m].sum(), len(m)) for m in members]).T
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(0, len(members), len(members)) for _ in range(N_RESAMPLES)]
    return _middle([sums[d].sum() / sizes[d].sum() for d in drawn])


def interval_of_map(
    labels: NDArray[np.bool_],
    scores: Floats,
    groups: NDArray[np.str_] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """The same for the mAP of labels and scores, (N, K) each; of fewer draws, as each sorts."""
    members = _members(len(labels), groups)
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(N_RESAMPLES // 10):
        chosen = generator.integers(0, len(members), len(members))
        drawn = np.concatenate([members[index] for index in chosen])
        values.append(measure(labels[drawn], scores[drawn], several=True))
    return _middle(values)


def _members(n: int, groups: NDArray[np.str_] | None) -> list[NDArray[np.int64]]:
    """The clips of each group; without groups each clip is one."""
    if groups is None:
        return list(np.arange(n)[:, None])
    _, group_of = np.unique(groups, return_inverse=True)
    order = np.argsort(group_of, kind="stable")
    return np.split(order, np.bincount(group_of).cumsum()[:-1])


def _middle(values: Sequence[float]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
