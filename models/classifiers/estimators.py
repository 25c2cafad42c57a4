"""Classifiers of embeddings: scikit-learn's, behind a standard scaler, and their layers.

Letters: `N` clips, `D` embedding dim, `K` classes, `H` hidden units.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64] | NDArray[np.bool_]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C: small is much regularised
DECAYS = (10.0, 1.0, 0.1, 0.01)  # scikit-learn's alpha, likewise
HIDDEN = 128
MAX_STEPS = 500


@dataclass(frozen=True)
class Kind:
    """Which estimator, and the regularisations to choose from, the strongest first."""

    name: str
    parameter: str
    choices: tuple[float, ...]


LOGISTIC = Kind("logistic regression", "C", STRENGTHS)
MLP = Kind("multi-layer perceptron", "alpha", DECAYS)


@dataclass(frozen=True)
class Layer:
    """One affine map: weights (inputs, outputs), shift (outputs,)."""

    weights: Array
    shift: Array


@dataclass(frozen=True)
class Fitted:
    """An estimator that has learnt: logits are the layers, with ReLU between, of scaled inputs."""

    scaler: StandardScaler
    estimators: tuple[Any, ...]
    layers: tuple[Layer, ...]
    is_split: bool = False
    """Whether each label has an estimator of its own."""

    def logits(self, embeddings: Floats) -> Array:
        """Before any calibration: (N, D) -> (N, K)."""
        x: Array = (embeddings.astype(np.float64) - self.scaler.mean_) / self.scaler.scale_
        for index, layer in enumerate(self.layers):
            x = (np.maximum(x, 0) if index else x) @ layer.weights + layer.shift
        return x

    def probabilities(self, embeddings: Floats) -> Array:
        """What scikit-learn itself answers, uncalibrated: (N, D) -> (N, K)."""
        x = self.scaler.transform(embeddings.astype(np.float64))
        answers = [estimator.predict_proba(x) for estimator in self.estimators]
        if self.is_split:
            return np.stack([answer[:, 1] for answer in answers], axis=1)
        n_classes = len(self.layers[-1].shift)
        return np.asarray(answers[0], np.float64)[:, -n_classes:]  # one label: its second column


def fit(kind: Kind, regularisation: float, x: Floats, labels: Labels, seed: int) -> Fitted:
    """Fit an estimator to embeddings (N, D) and labels, (N,) int or (N, K) bool."""
    scaler = StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the validation part is the judge
        return _fit(kind, regularisation, scaler, scaler.transform(x), labels, seed)


def fit_known(
    regularisations: Sequence[float],
    x: Floats,
    holds: NDArray[np.bool_],
    known: NDArray[np.bool_],
) -> Fitted:
    """A logistic regression a label, of those embeddings (N, D) that say whether it holds.

    Args:
        regularisations: one a label.
        x: the embeddings; all of them are scaled alike.
        holds: (N, K).
        known: (N, K).
    """
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [
            _logistic(regularisation, scaled[known[:, k]], holds[known[:, k], k])
            for k, regularisation in enumerate(regularisations)
        ]
    weights = np.concatenate([one.coef_ for one in fits])  # (K, D)
    shift = np.concatenate([one.intercept_ for one in fits])
    return Fitted(scaler, tuple(fits), _layers([weights.T], [shift], holds), is_split=True)


def _fit(
    kind: Kind, regularisation: float, scaler: StandardScaler, x: Floats, labels: Labels, seed: int
) -> Fitted:
    if kind is MLP:
        network = MLPClassifier(
            (HIDDEN,), alpha=regularisation, max_iter=MAX_STEPS, random_state=seed
        ).fit(x, np.squeeze(labels.astype(np.int64)))  # one label: as (N,)
        return Fitted(scaler, (network,), _layers(network.coefs_, network.intercepts_, labels))
    columns = [labels] if labels.ndim == 1 else list(labels.T)
    fits = [_logistic(regularisation, x, column) for column in columns]
    weights = np.concatenate([one.coef_ for one in fits])  # (K, D)
    shift = np.concatenate([one.intercept_ for one in fits])
    layers = _layers([weights.T], [shift], labels)
    return Fitted(scaler, tuple(fits), layers, is_split=labels.ndim == 2)


def _logistic(regularisation: float, x: Floats, labels: Labels) -> LogisticRegression:
    """Logistic regression on scaled embeddings (N, D).

    The weights that the penalty leaves lie in the span of the N rows, so few clips are turned into
    fewer dimensions first: the same classifier, ten times as fast.
    """
    line = LogisticRegression(C=regularisation, max_iter=MAX_STEPS, tol=1e-3)
    if 2 * len(x) > x.shape[1]:
        return line.fit(x, labels)
    basis = np.linalg.qr(x.T)[0].T  # (N, D)
    line.fit(x @ basis.T, labels)
    line.coef_, line.n_features_in_ = line.coef_ @ basis, x.shape[1]
    return line


def _layers(
    weights: Sequence[NDArray[Any]], shifts: Sequence[NDArray[Any]], labels: Labels
) -> tuple[Layer, ...]:
    """As affine maps; of two classes scikit-learn has the second's logit alone."""
    layers = [
        Layer(w.astype(np.float64), b.astype(np.float64))
        for w, b in zip(weights, shifts, strict=True)
    ]
    last = layers[-1]
    if labels.ndim == 1 and last.weights.shape[1] == 1:
        halves = np.array([[-0.5, 0.5]])
        layers[-1] = Layer(last.weights @ halves, last.shift @ halves)
    return tuple(layers)
