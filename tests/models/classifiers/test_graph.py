"""Estimators, novelty and the graph that they become."""

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from models import classifier
from models.classifiers import calibration, estimators, graph, novelty
from models.classifiers.estimators import LOGISTIC, MLP, Kind

DIM = 24
KINDS = pytest.mark.parametrize("kind", [LOGISTIC, MLP], ids=lambda kind: kind.parameter)
LABELS = pytest.mark.parametrize("labels_of", ["two", "three", "many", "one label", "pairs"])


def vectors(n: int = 90, dim: int = DIM, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(2, 3, (n, dim)).astype(np.float32)


def labels(labels_of: str, x: np.ndarray) -> np.ndarray:
    signs = x[:, :5] > 2
    return {
        "two": signs[:, 0].astype(int),
        "three": signs[:, :2].sum(axis=1),
        "many": signs.sum(axis=1),
        "one label": signs[:, :1],
        "pairs": signs[:, :3],
    }[labels_of]


@KINDS
@LABELS
def test_the_layers_are_scikit_learns_classifier(kind: Kind, labels_of: str) -> None:
    x = vectors()
    y = labels(labels_of, x)
    fitted = estimators.fit(kind, kind.choices[1], x, y, seed=0)
    ours = calibration.probabilities(fitted.logits(x), multi_label=y.ndim == 2)
    np.testing.assert_allclose(ours, fitted.probabilities(x), atol=1e-6)


def test_few_clips_in_many_dimensions_get_the_classifier_of_all_dimensions() -> None:
    x = vectors(40, dim=200)
    y = labels("three", x)
    fitted = estimators.fit(LOGISTIC, 0.01, x, y, seed=0)
    scaled = StandardScaler().fit_transform(x)
    plain = LogisticRegression(C=0.01, max_iter=500, tol=1e-6).fit(scaled, y)
    np.testing.assert_allclose(fitted.layers[0].weights.T, plain.coef_, atol=2e-3)
    assert fitted.layers[0].weights.shape == (200, 3)


@KINDS
@LABELS
def test_the_graph_computes_what_the_layers_compute(kind: Kind, labels_of: str) -> None:
    x = vectors()
    y = labels(labels_of, x)
    fitted = estimators.fit(kind, kind.choices[1], x, y, seed=0)
    scaling = calibration.fit(fitted.logits(x), y)
    known = novelty.choose(x, np.ones((len(x), 1), bool), seed=0)
    proto = graph.build(fitted, scaling, known, multi_label=y.ndim == 2)
    assert {node.domain for node in proto.graph.node} == {""}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    other = vectors(seed=1)
    probabilities, logits, distance = session.run(classifier.OUTPUTS, {"embedding": other})
    expected = scaling(fitted.logits(other))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    right = calibration.probabilities(expected, multi_label=y.ndim == 2)
    np.testing.assert_allclose(probabilities, right, atol=1e-4)
    np.testing.assert_allclose(distance, known.distance(other), atol=1e-6)


def test_the_same_seed_builds_the_same_graph() -> None:
    x = vectors()
    y = labels("three", x)
    graphs = set()
    for _ in range(2):
        fitted = estimators.fit(MLP, 0.1, x, y, seed=3)
        known = novelty.choose(x, y[:, None] == np.arange(3), seed=3)
        scaling = calibration.fit(fitted.logits(x), y)
        graphs.add(graph.build(fitted, scaling, known, multi_label=False).SerializeToString())
    assert len(graphs) == 1


def test_a_known_vector_is_at_distance_0_and_an_orthogonal_one_at_1() -> None:
    x = np.eye(4, dtype=np.float32)[:3]
    known = novelty.choose(x, np.ones((3, 1), bool), seed=0)
    np.testing.assert_allclose(known.distance(x), 0, atol=1e-3)
    np.testing.assert_allclose(known.distance(100 * x), 0, atol=1e-3)
    np.testing.assert_allclose(known.distance(np.eye(4, dtype=np.float32)[3:]), 1)
    np.testing.assert_allclose(known.distance(np.zeros((1, 4), np.float32)), 1)


def test_references_are_a_sample_in_which_rare_classes_have_their_turn() -> None:
    x = vectors(2000)
    rare = np.arange(2000) % 100 == 0
    known = novelty.choose(x, np.stack([rare, ~rare], axis=1), seed=0)
    assert len(known.vectors) == novelty.N_REFERENCES
    assert (known.distance(x[rare]) < 1e-3).all()


def test_the_threshold_lets_nineteen_of_twenty_pass() -> None:
    distances = np.random.default_rng(0).random(1000)
    assert (distances <= novelty.threshold(distances)).mean() == pytest.approx(0.95, abs=1e-3)
