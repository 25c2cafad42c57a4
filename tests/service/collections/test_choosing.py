"""What to label next: where a classifier hesitates, what is far from all that is labelled."""

import numpy as np
import pytest

from service.collections import choosing
from service.collections.choosing import STRATEGIES, candidates, choose, margins


def test_a_margin_is_what_lies_between_the_two_best() -> None:
    found = np.array([[0.5, 0.4, 0.1], [0.9, 0.05, 0.05]], np.float32)
    np.testing.assert_allclose(margins(found, multi_label=False), [0.1, 0.85], atol=1e-6)
    np.testing.assert_allclose(margins(found, multi_label=True), [0.0, 0.8], atol=1e-6)
    np.testing.assert_allclose(margins(found[:, :1], multi_label=False), [0.0, 0.8], atol=1e-6)


@pytest.fixture
def circle() -> np.ndarray:
    """60 directions, the first 50 of them close together."""
    angles = np.concatenate([np.linspace(0, 0.1, 50), np.linspace(0.5, 5, 10)])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_nothing_nothing_is_chosen(strategy: choosing.Strategy) -> None:
    none = np.empty((0, 2), np.float32)
    assert not len(choose(strategy, 3, np.empty(0), none, none, 0))


def test_margin_takes_the_least_certain(circle: np.ndarray) -> None:
    margin = np.random.default_rng(0).random(60)
    chosen = choose("margin", 5, margin, circle, circle[:3], 0)
    assert sorted(margin[chosen]) == sorted(margin)[:5]


def test_diverse_goes_where_nothing_is_labelled(circle: np.ndarray) -> None:
    chosen = choose("diverse", 6, np.zeros(60), circle, circle[:3], 0)
    assert (chosen >= 50).all()
    spread = circle[chosen] @ circle[chosen].T - 2 * np.eye(6)
    assert spread.max() < np.cos(0.4)


def test_mixed_is_diverse_among_the_least_certain(circle: np.ndarray) -> None:
    margin = np.where((np.arange(60) >= 45) & (np.arange(60) < 55), 0.1, 0.9)
    assert choose("mixed", 1, margin, circle, circle[:3], 0).tolist() == [54]
    assert choose("diverse", 1, margin, circle, circle[:3], 0).tolist() != [54]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n", [1, 60, 100])
def test_nothing_is_proposed_twice(circle: np.ndarray, strategy: str, n: int) -> None:
    for labelled in (circle[:0], circle[:5]):
        chosen = choose(strategy, n, np.zeros(60), circle, labelled, 0)  # type: ignore[arg-type]
        assert len(chosen) == len(set(chosen.tolist())) == min(n, 60)


def test_of_very_many_candidates_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "MAX_CANDIDATES", 10)
    heard = np.arange(100) % 2 == 0
    drawn = candidates(heard, 1)
    assert len(drawn) == 10
    assert not heard[drawn].any()
    np.testing.assert_array_equal(drawn, candidates(heard, 1))
