"""How far an embedding lies from those of the training clips: the distance to the nearest of some.

Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors (arXiv 2204.06507): distance
to the k-th neighbour of normalised features. Here it is one minus the cosine to the first, since
the references are a sample; `benchmarks/calibration.py` has the figures. Letters: `N` embeddings,
`D` embedding dim, `R` references, `K` classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_REFERENCES = 256  # more tell no more, and a classifier file stays below 2 MB
PASSING = 0.95  # share of held-out clips that the threshold lets pass
EPS = 1e-12  # norm of a vector of zeros


@dataclass(frozen=True)
class References:
    """Normalised embeddings of training clips (R, D), at the precision of the file that ships."""

    vectors: NDArray[np.float16]

    def distance(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """One minus the cosine to the nearest reference: (N, D) -> (N,)."""
        cosines = normalised(embeddings) @ self.vectors.astype(np.float64).T
        distance: NDArray[np.float64] = np.maximum(1 - cosines.max(axis=1), 0)
        return distance


def choose(embeddings: NDArray[np.float32], classes: NDArray[np.bool_], seed: int) -> References:
    """A sample of the training clips (N, D) in which all classes (N, K) have their turns."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(embeddings))
    turn = np.full(len(order), len(order))  # of each clip within its rarest class
    for column in classes[order].T:
        turn = np.where(column, np.minimum(turn, np.cumsum(column)), turn)
    kept = order[np.argsort(turn, kind="stable")[:N_REFERENCES]]
    return References(normalised(embeddings[np.sort(kept)]).astype(np.float16))


def normalised(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Embeddings (N, D) of length 1."""
    rows = embeddings.astype(np.float64)
    unit: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), EPS)
    return unit


def threshold(distances: NDArray[np.float64]) -> float:
    """The distance below which `PASSING` of held-out clips lie: (N,) -> one."""
    return float(np.quantile(distances, PASSING))
