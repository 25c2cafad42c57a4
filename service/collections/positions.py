"""Items on a plane, so that what sounds alike lies together, and in clusters.

The plane is t-SNE (van der Maaten and Hinton, 2008), exact, begun from the two principal axes; the
clusters are those of k-means on the vectors, begun as k-means++ does (Arthur and Vassilvitskii,
2007). The same vectors and seed give the same map. Letters: `N` items, `D` embedding dim.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.windows import unit
from service.collections.records import Doubles, Floats, Integers, StoreError, Vectors

MAX_ITEMS = 1000  # every one is compared with every other, some hundred times
PERPLEXITY = 30.0  # neighbours that matter to an item, about
STEPS, EXAGGERATED = 300, 100  # of the descent, and how many of them with close items pulled closer
EXAGGERATION = 12.0
CLUSTER_STEPS, CLUSTER_STARTS = 50, 8
TINY = 1e-12


class TooManyItems(StoreError):
    """More than are put on one map."""

    kind = "too-many-to-compare"


@dataclass(frozen=True)
class Map:
    """Where each item lies, (N, 2) from -1 to 1, and in which cluster (N,), the largest being 0."""

    items: Integers
    places: Doubles
    clusters: Integers


def place_items(windows: Vectors, *, n_clusters: int = 8, seed: int = 0) -> Map:
    """A map of the items that these windows are of; an item is the mean of its windows.

    Raises:
        TooManyItems: there are more than `MAX_ITEMS`.
    """
    items, vectors = _means(windows)
    check_few_items(len(items))
    rng = np.random.default_rng(seed)
    return Map(items, _plane(vectors), _clusters(vectors, min(n_clusters, len(items)), rng))


def check_few_items(n_items: int) -> None:
    """Refuse more items than are put on a map, before their vectors are read.

    Raises:
        TooManyItems: there are more than `MAX_ITEMS`.
    """
    if n_items > MAX_ITEMS:
        raise TooManyItems(
            f"{n_items} items would be put on the map; at most {MAX_ITEMS} are: use a filter.",
            limit=MAX_ITEMS,
            observed=n_items,
            unit="items",
        )


def _means(windows: Vectors) -> tuple[Integers, Floats]:
    items, which = np.unique(windows.items, return_inverse=True)
    sums = np.zeros((len(items), windows.vectors.shape[1]), np.float32)
    np.add.at(sums, which, unit(windows.vectors))
    return items, unit(sums)


def _plane(vectors: Floats) -> Doubles:
    """(N, D) -> (N, 2)."""
    n = len(vectors)
    if n < 3:
        return np.stack([np.linspace(-1, 1, n) if n > 1 else np.zeros(n), np.zeros(n)], axis=1)
    affinity = _affinity(_squared_distances(vectors.astype(np.float64)))
    places = 1e-2 * _principal(vectors)
    velocity = np.zeros_like(places)
    gains = np.ones_like(places)
    rate = max(50.0, n / EXAGGERATION)
    for step in range(STEPS):
        pull = EXAGGERATION if step < EXAGGERATED else 1.0
        gradient = _gradient(pull * affinity, places)
        agrees = np.sign(gradient) == np.sign(velocity)
        gains = np.maximum(0.01, np.where(agrees, 0.8 * gains, gains + 0.2))
        velocity = (0.5 if step < EXAGGERATED else 0.8) * velocity - rate * gains * gradient
        places = places + velocity
        places -= places.mean(axis=0)
    scaled: Doubles = places / max(TINY, float(np.abs(places).max()))
    return scaled


def _gradient(affinity: Doubles, places: Doubles) -> Doubles:
    near = 1 / (1 + _squared_distances(places))
    np.fill_diagonal(near, 0)
    force = (affinity - near / max(TINY, float(near.sum()))) * near
    gradient: Doubles = 4 * (force.sum(axis=1)[:, None] * places - force @ places)
    return gradient


def _affinity(distances: Doubles) -> Doubles:
    """How much each pair belongs together (N, N), as many neighbours counting for each item."""
    n = len(distances)
    wanted = np.log(min(PERPLEXITY, (n - 1) / 3))
    low, high, sharpness = np.zeros(n), np.full(n, np.inf), np.ones(n)
    for _ in range(50):
        share = np.exp(-distances * sharpness[:, None])
        np.fill_diagonal(share, 0)
        total = np.maximum(share.sum(axis=1), TINY)
        entropy = np.log(total) + sharpness * (distances * share).sum(axis=1) / total
        too_wide = entropy > wanted
        low, high = np.where(too_wide, sharpness, low), np.where(too_wide, high, sharpness)
        sharpness = np.where(np.isinf(high), 2 * sharpness, (low + np.minimum(high, 1e12)) / 2)
    share /= total[:, None]
    together: Doubles = np.maximum((share + share.T) / (2 * n), TINY)
    return together


def _principal(vectors: Floats) -> Doubles:
    """Coordinates along the two axes on which the vectors differ most, at deviation 1: (N, 2)."""
    centred = vectors - vectors.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    chosen = left[:, :2] * np.sign(left[np.abs(left[:, :2]).argmax(axis=0), [0, 1]])
    coordinates: Doubles = chosen * np.sqrt(len(vectors)) * (lengths[:2] > TINY)
    return coordinates


def _clusters(vectors: Floats, k: int, rng: np.random.Generator) -> Integers:
    """Which of `k` clusters each vector (N, D) is in (N,), numbered by size; the best of some."""
    if k < 1:
        return np.zeros(len(vectors), np.int64)
    starts = [_one_start(vectors, k, rng) for _ in range(CLUSTER_STARTS)]
    nearest = max(starts, key=lambda start: start[0])[1]
    order = np.argsort(-np.bincount(nearest, minlength=k), kind="stable")
    ranks: Integers = np.argsort(order)[nearest]
    return ranks


def _one_start(vectors: Floats, k: int, rng: np.random.Generator) -> tuple[float, Integers]:
    """How close the vectors are to their centres, all cosines together, and which those are."""
    centres = _spread_out(vectors, k, rng)
    nearest = np.argmax(vectors @ centres.T, axis=1)
    for _ in range(CLUSTER_STEPS):
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, vectors)
        filled = np.linalg.norm(sums, axis=1) > TINY
        centres = np.where(filled[:, None], unit(sums), centres)
        before, nearest = nearest, np.argmax(vectors @ centres.T, axis=1)
        if (before == nearest).all():
            break
    return float((vectors @ centres.T).max(axis=1).sum()), nearest


def _spread_out(vectors: Floats, k: int, rng: np.random.Generator) -> Floats:
    """`k` of the vectors, each far from those before it."""
    chosen = [int(rng.integers(len(vectors)))]
    for _ in range(k - 1):
        far = 1 - (vectors @ vectors[chosen].T).max(axis=1)
        far = np.maximum(far, 0).astype(np.float64)
        far[chosen] = 0
        total = far.sum()
        left = np.setdiff1d(np.arange(len(vectors)), chosen)
        chosen.append(int(rng.choice(len(far), p=far / total) if total > TINY else left[0]))
    return vectors[chosen]


def _squared_distances(points: NDArray[np.float64]) -> Doubles:
    """The squared distance of each pair of points (N, N)."""
    squares = np.square(points).sum(axis=1)
    distances: Doubles = np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0)
    return distances
