import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from models.labelled.splits import Round
from training.evaluation.linear_probe import linear
from training.evaluation.scores import measure

N = 600
ROUND = Round("1", np.arange(400), np.arange(400, 480), np.arange(480, N))


def classes(distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, 256) of four classes that overlap, and their labels (N, 4)."""
    generator = np.random.default_rng(0)
    labels = np.eye(4, dtype=bool)[np.arange(N) % 4]
    centres = generator.normal(0, distance, (4, 256))
    vectors = labels @ centres + generator.normal(0, 1, (N, 256))
    return (100 * vectors).astype(np.float32), labels


def test_it_is_as_good_as_logistic_regression() -> None:
    vectors, labels = classes(0.15)
    scores = linear(vectors, labels, ROUND)
    scaler = StandardScaler().fit(vectors[ROUND.train])
    reference = LogisticRegression().fit(
        scaler.transform(vectors[ROUND.train]), labels[ROUND.train].argmax(1)
    )
    expected = reference.score(scaler.transform(vectors[ROUND.test]), labels[ROUND.test].argmax(1))
    assert 0.6 < expected < 0.95
    assert measure(labels[ROUND.test], scores, several=False) == pytest.approx(expected, abs=0.03)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)


def test_a_class_of_several_labels_is_learnt_by_itself() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((N, 3)) < 0.4
    vectors = labels @ generator.normal(0, 0.3, (3, 256)) + generator.normal(0, 1, (N, 256))
    vectors = vectors.astype(np.float32)
    scores = linear(vectors, labels, ROUND)
    assert measure(labels[ROUND.test], scores, several=True) > 0.9
    assert (scores.sum(1) > 1.2).any()


def test_the_same_seed_gives_the_same_answers_and_global_numbers_stay() -> None:
    vectors, labels = classes(0.15)
    state = torch.get_rng_state()
    one, again, other = (linear(vectors, labels, ROUND, seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_and_statistics_of_the_test_part_are_not_used() -> None:
    vectors, labels = classes(0.15)
    expected = linear(vectors, labels, ROUND)[:10]
    vectors[490:] = 1e6
    labels[480:] = np.eye(4, dtype=bool)[0]
    np.testing.assert_array_equal(linear(vectors, labels, ROUND)[:10], expected)


def test_a_value_that_never_changes_does_no_harm() -> None:
    vectors, labels = classes(0.15)
    vectors[:, 0] = 7
    assert np.isfinite(linear(vectors, labels, ROUND)).all()


def test_gradients_may_be_off_around_it() -> None:
    vectors, labels = classes(0.15)
    with torch.no_grad():
        assert measure(labels[ROUND.test], linear(vectors, labels, ROUND), several=False) > 0.5
