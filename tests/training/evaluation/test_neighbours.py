import numpy as np
import pytest
from numpy.typing import NDArray

from models.labelled.splits import Round
from training.evaluation import neighbours

ROUND = Round("1", np.arange(30), np.arange(30, 40), np.arange(40, 60))
LABELS = np.eye(4, dtype=bool)[np.arange(60) % 4]
Floats = NDArray[np.float32]


def clusters(spread: float, seed: int = 0) -> Floats:
    """Embeddings in four directions, one a class."""
    generator = np.random.default_rng(seed)
    centres = np.eye(4, 16, dtype=np.float32)[np.arange(60) % 4]
    return (centres + generator.normal(0, spread, (60, 16))).astype(np.float32)


def accuracy(scores: Floats) -> float:
    return float((scores.argmax(1) == LABELS[ROUND.test].argmax(1)).mean())


def test_clusters_are_told_by_their_neighbours_and_by_a_single_example() -> None:
    assert accuracy(neighbours.knn(clusters(0.02), LABELS, ROUND)) == 1
    assert accuracy(neighbours.few_shot(clusters(0.02), LABELS, ROUND, 1, seed=0)) == 1


def test_more_examples_help() -> None:
    one, ten = (
        np.mean(
            [accuracy(neighbours.few_shot(clusters(0.3), LABELS, ROUND, n, s)) for s in range(20)]
        )
        for n in (1, 10)
    )
    assert ten > one + 0.1


def test_the_length_of_a_vector_does_not_matter() -> None:
    vectors = clusters(0.3)
    scaled = vectors * np.random.default_rng(1).uniform(0.1, 10, (60, 1)).astype(np.float32)
    for score in (neighbours.knn, lambda *given: neighbours.few_shot(*given, 5, 0)):
        np.testing.assert_allclose(
            score(scaled, LABELS, ROUND), score(vectors, LABELS, ROUND), atol=1e-5
        )


def test_neither_the_test_clips_nor_their_neighbours_labels_are_used() -> None:
    vectors, others = clusters(0.3), LABELS.copy()
    others[ROUND.test] = ~others[ROUND.test]
    np.testing.assert_array_equal(
        neighbours.knn(vectors, LABELS, ROUND), neighbours.knn(vectors, others, ROUND)
    )


def test_examples_follow_from_the_seed() -> None:
    vectors = clusters(0.3)
    first, again, other = (
        neighbours.few_shot(vectors, LABELS, ROUND, 1, seed) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_a_class_without_examples_is_never_chosen() -> None:
    round_ = Round("1", np.flatnonzero(~LABELS[:, 2])[:20], ROUND.valid, ROUND.test)
    scores = neighbours.few_shot(clusters(0.1), LABELS, round_, 5, 0)
    assert (scores[:, 2] == 0).all()
    assert np.isfinite(scores).all()


def test_search_that_finds_only_its_own_class_scores_1() -> None:
    found = neighbours.average_precision_at(clusters(0.02), LABELS, ROUND, 5)
    np.testing.assert_allclose(found, 1)


def test_average_precision_is_that_of_the_definition() -> None:
    """Neighbours by angle: relevant, not, relevant; 3 relevant ones exist: (1/1 + 2/3) / 3."""
    angles = np.radians([1, 2, 3, 60, 0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    labels = np.eye(2, dtype=bool)[[0, 1, 0, 0, 0]]
    round_ = Round("1", np.arange(4), np.arange(0), np.array([4]))
    found = neighbours.average_precision_at(vectors, labels, round_, 3)
    assert found == pytest.approx([(1 + 2 / 3) / 3])


def test_what_cannot_be_found_does_not_count() -> None:
    vectors = clusters(0.1)
    round_ = Round("1", np.flatnonzero(~LABELS[:, 2])[:20], ROUND.valid, ROUND.test)
    found = neighbours.average_precision_at(vectors, LABELS, round_, 5)
    assert np.isnan(found[LABELS[ROUND.test][:, 2]]).all()
    assert np.isfinite(found[~LABELS[ROUND.test][:, 2]]).all()
