import numpy as np
import pytest

from models.classifiers import calibration
from models.classifiers.calibration import (
    best_thresholds,
    calibration_error,
    log_loss,
    probabilities,
    sigmoid,
    softmax,
    temperature,
)


def drawn(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 3), and classes drawn by their softmax (N,)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 3))
    return logits, (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)


def test_honest_logits_have_a_temperature_of_one() -> None:
    logits, labels = drawn()
    assert temperature(logits, labels) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("factor", [0.1, 3.0, 40.0])
def test_the_temperature_undoes_a_factor_and_no_shift(factor: float) -> None:
    logits, labels = drawn()
    expected = factor * temperature(logits, labels)
    assert temperature(factor * logits + 100, labels) == pytest.approx(expected, rel=1e-6)


def test_no_other_temperature_is_likelier() -> None:
    logits, labels = drawn()
    best = temperature(5 * logits, labels)
    losses = [log_loss(5 * logits / (best * factor), labels) for factor in (1, 1.05, 1 / 1.05)]
    assert losses[0] == min(losses)


def test_a_few_clips_that_are_all_right_make_no_classifier_certain() -> None:
    labels = np.arange(30) % 3
    logits = np.eye(3)[labels]
    sure = softmax(logits / temperature(logits, labels)).max()
    assert sure == pytest.approx(31 / 32)


@pytest.mark.parametrize("multi_label", [False, True])
def test_calibration_mends_what_is_too_sure(multi_label: bool) -> None:
    logits, labels = drawn()
    if multi_label:
        labels = sigmoid(logits) > np.random.default_rng(1).random(logits.shape)
    scaling = calibration.fit(4 * logits, labels)
    before = calibration_error(probabilities(4 * logits, multi_label=multi_label), labels)
    after = calibration_error(probabilities(scaling(4 * logits), multi_label=multi_label), labels)
    assert after < 0.03 < before


def test_platt_finds_the_line_that_the_labels_follow() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (20_000, 1))
    scaling = calibration.fit(logits, sigmoid(2 * logits + 1) > rng.random(logits.shape))
    assert scaling.scale[0] == pytest.approx(2, abs=0.1)
    assert scaling.shift[0] == pytest.approx(1, abs=0.1)


def test_the_error_is_how_far_confidence_is_from_being_right() -> None:
    sure, labels = np.tile([0.9, 0.1], (10, 1)), np.zeros(10, int)
    assert calibration_error(sure, labels) == pytest.approx(0.1)
    assert calibration_error(sure, labels + 1) == pytest.approx(0.9)
    labels[0] = 1
    assert calibration_error(sure, labels) == pytest.approx(0)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_a_threshold_is_where_f1_is_best() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.random((60, 2)), 1)  # with equals
    holds = rng.random((60, 2)) < scores

    def f1(column: int, threshold: float) -> float:
        chosen = scores[:, column] >= threshold
        hits = (chosen & holds[:, column]).sum()
        return float(2 * hits / (chosen.sum() + holds[:, column].sum()))

    for column, threshold in enumerate(best_thresholds(scores, holds)):
        best = max(f1(column, t) for t in np.unique(scores))
        assert f1(column, threshold) == pytest.approx(best)


def test_large_logits_do_not_overflow() -> None:
    large = np.array([[1e4, -1e4, 0.0]])
    np.testing.assert_array_equal(softmax(large), [[1, 0, 0]])
    np.testing.assert_array_equal(sigmoid(large), [[1, 0, 0.5]])


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_is_the_surprise_at_what_holds(multi_label: bool) -> None:
    logits, labels = drawn(50)
    if multi_label:
        holds = logits > 0.5
        p = np.where(holds, sigmoid(logits), 1 - sigmoid(logits))
        assert log_loss(logits, holds) == pytest.approx(-np.log(p).mean())
    else:
        p = softmax(logits)[np.arange(50), labels]
        assert log_loss(logits, labels) == pytest.approx(-np.log(p).mean())


def test_a_ranking_is_never_turned_over() -> None:
    logits = np.linspace(-1, 1, 40)[:, None]
    scaling = calibration.fit(logits, logits < 0)
    assert (scaling.scale[0], scaling.shift[0]) == (1.0, 0.0)
