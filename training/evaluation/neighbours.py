"""What embeddings do without training a layer: nearest neighbours, few examples, search.

All of them compare by the cosine of raw embeddings, as a user of the service does. Letters: `N`
clips, `D` embedding dim, `K` classes.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from models.labelled.splits import Indices, Round
from models.windows import unit

N_NEIGHBOURS = 10
Floats = NDArray[np.float32]


def knn(embeddings: Floats, labels: NDArray[np.bool_], round_: Round) -> Floats:
    """The share of each class among the nearest training clips: (N, D), (N, K) -> (n test, K).

    Nearer ones count for more, by the rank, so that ties are rare.
    """
    nearest, _ = _search(embeddings, round_.train, round_.test, N_NEIGHBOURS)
    weights = 1 / np.arange(1, nearest.shape[1] + 1, dtype=np.float32)
    votes: Floats = np.einsum("nik,i->nk", labels[nearest], weights / weights.sum())
    return votes


def few_shot(
    embeddings: Floats, labels: NDArray[np.bool_], round_: Round, shots: int, seed: int
) -> Floats:
    """Cosine to the mean of `shots` training clips of each class: -> (n test, K).

    "Prototypes" (Snell et al., arXiv 1703.05175). A class with fewer clips gives those it has.
    """
    generator = np.random.default_rng(seed)
    directions = unit(embeddings)
    means = np.zeros((labels.shape[1], embeddings.shape[1]), np.float32)
    for class_ in range(labels.shape[1]):
        examples = generator.permutation(round_.train[labels[round_.train, class_]])[:shots]
        if len(examples):
            means[class_] = directions[examples].mean(0)
    similarity: Floats = directions[round_.test] @ unit(means).T
    return similarity


def average_precision_at(
    embeddings: Floats, labels: NDArray[np.bool_], round_: Round, k: int
) -> NDArray[np.float64]:
    """How well each test clip finds training clips that share a label: AP@k, (n test,).

    The mean over the ranks of hits of the precision up to there, over as many hits as could be
    among the first `k`. Not a number where nothing could be found.
    """
    nearest, n_found = _search(embeddings, round_.train, round_.test, k)
    queries = labels[round_.test]
    hits = (labels[nearest] & queries[:, None]).any(2)  # (n, k)
    n_relevant = (queries.astype(np.float32) @ labels[round_.train].T.astype(np.float32) > 0).sum(1)
    precision = hits.cumsum(1) / np.arange(1, n_found + 1)
    possible = np.minimum(n_relevant, n_found)
    best = np.where(possible > 0, possible, np.nan)
    result: NDArray[np.float64] = (precision * hits).sum(1) / best
    return result


def _search(
    embeddings: Floats, among: Indices, queries: Indices, n: int
) -> tuple[NDArray[np.int64], int]:
    """The `n` clips `among` which lie nearest to each query, nearest first: (n queries, n)."""
    n = min(n, len(among))
    index = NearestNeighbors(n_neighbors=n, metric="cosine", algorithm="brute")
    found = index.fit(embeddings[among]).kneighbors(embeddings[queries], return_distance=False)
    return among[found], n
