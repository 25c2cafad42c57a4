import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from training.evaluation import scores

LABELS = np.eye(3, dtype=bool)[[0, 0, 1, 2]]
ANSWERS = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.8, 0.1], [0, 0.3, 0.7]])


def test_accuracy_and_confusion_tell_the_same_story() -> None:
    assert scores.measure(LABELS, ANSWERS, several=False) == 0.75
    table = scores.confusion(LABELS, ANSWERS)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert np.trace(table) / table.sum() == 0.75


def test_map_is_the_mean_over_classes_that_occur() -> None:
    labels = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=bool)
    answers = np.array([[0.9, 0.5, 0.5], [0.8, 0.9, 0.1], [0.1, 0.6, 0.2]])
    precisions = scores.average_precisions(labels, answers)
    np.testing.assert_allclose(precisions[:2], [(1 + 2 / 3) / 2, (1 + 2 / 3) / 2])
    assert np.isnan(precisions[2])
    assert scores.measure(labels, answers, several=True) == pytest.approx(5 / 6)


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_scikit_learns_with_and_without_ties(levels: int) -> None:
    generator = np.random.default_rng(levels)
    labels = generator.random((80, 5)) < 0.3
    answers = generator.integers(0, levels, (80, 5)) / levels
    expected = [average_precision_score(labels[:, k], answers[:, k]) for k in range(5)]
    np.testing.assert_allclose(scores.average_precisions(labels, answers), expected)


def test_an_interval_holds_the_mean_and_narrows_with_more_clips() -> None:
    widths = []
    for repeats in (10, 1000):
        low, high = scores.interval_of_mean(np.tile([1.0, 0, 1, 1], repeats))
        assert low <= 0.75 <= high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.2)
    # binomial: 2 * 1.96 * sqrt(p (1 - p) / N)
    assert widths[1] == pytest.approx(3.92 * np.sqrt(0.75 * 0.25 / 4000), rel=0.1)


def test_clips_of_a_group_are_not_taken_for_independent() -> None:
    values = np.tile([1.0, 0, 1, 1], 100)
    groups = np.array([f"speaker{index % 4}" for index in range(400)])
    alone = scores.interval_of_mean(values)
    together = scores.interval_of_mean(values, groups)
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


def test_several_labels_have_an_interval_too() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((60, 3)) < 0.3
    answers = labels + generator.normal(0, 0.5, labels.shape)
    low, high = scores.interval_of_map(labels, answers)
    assert low < scores.measure(labels, answers, several=True) < high
