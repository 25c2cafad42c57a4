"""The map: alike lies together, and it is the same every time."""

import numpy as np
import pytest

from service.collections.positions import TooManyItems, place_items
from service.collections.records import Floats, Vectors


def windows_of(vectors: Floats, each: int = 1) -> Vectors:
    n = len(vectors)
    items = np.repeat(np.arange(n // each), each)
    return Vectors(np.arange(n), items, np.zeros(n), np.ones(n), vectors.astype(np.float32))


def groups(n_groups: int = 4, each: int = 15) -> Floats:
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((n_groups, 32))
    return np.repeat(centres, each, axis=0) + rng.standard_normal((n_groups * each, 32))


def test_what_is_alike_lies_together_and_is_one_cluster() -> None:
    found = place_items(windows_of(groups()), n_clusters=4)
    assert found.places.shape == (60, 2)
    assert np.abs(found.places).max() == 1
    truth = np.repeat(np.arange(4), 15)
    distances = np.linalg.norm(found.places[:, None] - found.places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (truth[distances.argmin(axis=1)] == truth).mean() > 0.95
    for group in range(4):
        assert len(set(found.clusters[truth == group].tolist())) == 1
    assert set(found.clusters.tolist()) == {0, 1, 2, 3}


def test_the_same_seed_gives_the_same_map() -> None:
    windows = windows_of(groups())
    one, other = (place_items(windows, n_clusters=5, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.places, other.places)
    np.testing.assert_array_equal(one.clusters, other.clusters)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_few_items_have_places_too(n: int) -> None:
    found = place_items(windows_of(groups()[:n]))
    assert found.places.shape == (n, 2)
    assert np.isfinite(found.places).all()
    assert len(found.clusters) == n


def test_items_that_are_all_the_same_have_places_too() -> None:
    found = place_items(windows_of(np.ones((20, 8))))
    assert np.isfinite(found.places).all()


def test_an_item_is_the_mean_of_its_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(place_items(windows_of(groups(), each=3)).items) == 20
    monkeypatch.setattr("service.collections.positions.MAX_ITEMS", 19)
    with pytest.raises(TooManyItems, match="20 items"):
        place_items(windows_of(groups(), each=3))
