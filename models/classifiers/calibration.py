"""Logits -> honest probabilities: temperature, Platt scaling, and how far off they are.

Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599); Platt, Probabilistic
Outputs for Support Vector Machines (1999). Letters: `N` clips, `K` classes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

Array = NDArray[np.float64]
Labels = NDArray[np.int64] | NDArray[np.bool_]

N_BINS = 15
STEPS = 60  # of a bisection over log(1 / T)
MAX_LOG = math.log(1000.0)


@dataclass(frozen=True)
class Scaling:
    """Calibrated logits are `scale * logits + shift`, each a number a class (K,)."""

    scale: Array
    shift: Array

    def __call__(self, logits: Array) -> Array:
        """Calibrate logits (N, K)."""
        return logits * self.scale + self.shift


def unchanged(n_classes: int) -> Scaling:
    """The logits of K classes as they are."""
    return Scaling(np.ones(n_classes), np.zeros(n_classes))


def fit(logits: Array, labels: Labels) -> Scaling:
    """Calibrate on held-out logits (N, K): a temperature where one label holds, else Platt's way.

    Labels are (N,) int, or (N, K) bool where several can hold.
    """
    if labels.ndim == 1:
        sharpness = 1 / temperature(logits, labels.astype(np.int64))
        n_classes = logits.shape[1]
        return Scaling(np.full(n_classes, sharpness), np.zeros(n_classes))
    lines = [_platt(logits[:, k], labels[:, k].astype(bool)) for k in range(logits.shape[1])]
    scale, shift = zip(*lines, strict=True)
    return Scaling(np.array(scale), np.array(shift))


def temperature(logits: Array, labels: NDArray[np.int64]) -> float:
    """The T in [0.001, 1000] for which `logits / T` are likeliest: (N, K), (N,) -> T.

    The loss is convex in 1 / T, so its slope changes sign once: bisection finds where. Clips that
    are all classified right, as a few easily are, would make the classifier infinitely sure; its
    mean confidence stops where one error in N + 2 is expected (Laplace's rule).
    """
    n_clips = len(labels)
    shifted = logits - logits.max(axis=1, keepdims=True)
    of_label = shifted[np.arange(n_clips), labels].mean()
    low, high = -MAX_LOG, MAX_LOG
    for _ in range(STEPS):
        middle = (low + high) / 2
        shares = softmax(shifted * math.exp(middle))
        too_likely = (shares * shifted).sum(axis=1).mean() > of_label
        too_sure = shares.max(axis=1).mean() > (n_clips + 1) / (n_clips + 2)
        low, high = (low, middle) if too_likely or too_sure else (middle, high)
    return math.exp(-(low + high) / 2)


def _platt(logits: Array, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and shift of one label's logits (N,), with Platt's softened targets.

    Logits that run against their labels stay as they are: a ranking is never turned over.
    """
    n_yes, n_no = int(labels.sum()), int((~labels).sum())
    yes = np.where(labels, (n_yes + 1) / (n_yes + 2), 1 / (n_no + 2))
    line = LogisticRegression(C=1e6, max_iter=1000)
    column = np.concatenate([logits, logits])[:, None]
    targets = np.repeat([1, 0], len(logits))
    line.fit(column, targets, sample_weight=np.concatenate([yes, 1 - yes]))
    slope, shift = float(line.coef_[0, 0]), float(line.intercept_[0])
    return (slope, shift) if slope > 0 else (1.0, 0.0)


def probabilities(logits: Array, *, multi_label: bool) -> Array:
    """(N, K) -> (N, K): sigmoid where several labels can hold, else softmax."""
    return sigmoid(logits) if multi_label else softmax(logits)


def softmax(logits: Array) -> Array:
    """Over the classes: (N, K) -> (N, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits: Array) -> Array:
    """Of each logit, without overflow."""
    result: Array = 0.5 * (1 + np.tanh(logits / 2))
    return result


def log_loss(logits: Array, labels: Labels) -> float:
    """Mean negative log likelihood: (N, K) -> one."""
    if labels.ndim == 2:
        signs = np.where(labels, -1.0, 1.0)
        return float(np.logaddexp(0, signs * logits).mean())
    shifted = logits - logits.max(axis=1, keepdims=True)
    of_label = shifted[np.arange(len(labels)), labels.astype(np.int64)]
    return float((np.log(np.exp(shifted).sum(axis=1)) - of_label).mean())


def helps(before: Array, after: Array, labels: Labels) -> bool:
    """Whether calibration made the probabilities (N, K) of held-out clips no worse.

    Neither the calibration error nor the log loss may rise: of few, easy clips a temperature is
    learnt that makes things worse.
    """
    errors = [calibration_error(p, labels) for p in (before, after)]
    losses = [_surprise(p, labels) for p in (before, after)]
    return errors[1] <= errors[0] and losses[1] <= losses[0]


def _surprise(probabilities: Array, labels: Labels) -> float:
    """Mean negative log of the probability that was given to the true labels."""
    if labels.ndim == 2:
        given = np.where(labels, probabilities, 1 - probabilities)
    else:
        given = probabilities[np.arange(len(labels)), labels.astype(np.int64)]
    return float(-np.log(np.maximum(given, 1e-12)).mean())


def calibration_error(probabilities: Array, labels: Labels) -> float:
    """Expected calibration error (Guo et al., eq. 3), 15 bins of equal width; mean over labels.

    Where one label holds, of the best label's probability; else of each label's.
    """
    if labels.ndim == 1:
        right = probabilities.argmax(axis=1) == labels
        return _binned(probabilities.max(axis=1), right)
    errors = [
        _binned(probabilities[:, k], labels[:, k].astype(bool)) for k in range(labels.shape[1])
    ]
    return float(np.mean(errors))


def _binned(confidence: Array, right: NDArray[np.bool_]) -> float:
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=N_BINS)
    return float(np.abs(gaps).sum() / len(right))


def best_thresholds(probabilities: Array, labels: NDArray[np.bool_]) -> list[float]:
    """For each label the probability from which on its F1 is best: (N, K), (N, K) -> K."""
    thresholds = []
    for column, holds in zip(probabilities.T, labels.T, strict=True):
        order = np.argsort(-column, kind="stable")
        hits = np.cumsum(holds[order])
        f1 = 2 * hits / (np.arange(1, len(order) + 1) + holds.sum())
        last_of_equal = np.append(np.diff(column[order]) != 0, True)
        thresholds.append(float(column[order[np.where(last_of_equal, f1, -1).argmax()]]))
    return thresholds
