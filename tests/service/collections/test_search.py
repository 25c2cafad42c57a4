"""What a query means, what its hits say, and near-duplicates."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.collections.duplicates import TooManyWindows, find_duplicates
from service.collections.filters import Filter
from service.collections.records import Collection, Floats, ItemNotFound, Vectors
from service.collections.search import NoDirection, Query, Searcher, direction, percentile
from service.collections.store import Store
from service.collections.windows import fetched
from tests.service.collections.conftest import QUOTA, new_item

E0, E1, E2 = np.eye(3, dtype=np.float32)


@pytest.fixture
def searcher(store: Store) -> Searcher:
    return Searcher(store)


@pytest.fixture
def full(store: Store, collection: Collection) -> Collection:
    store.items.add(collection, [new_item(i, 1 + i % 3) for i in range(30)], QUOTA)
    return store.collections.get("ann", "birds")


def test_the_direction_leads_to_what_is_wanted_and_away_from_what_is_not() -> None:
    both = direction(np.stack([3 * E0, 5 * E1]))
    np.testing.assert_allclose(both, (E0 + E1) / np.sqrt(2), rtol=1e-6)
    away = direction(E0[None], np.stack([E1, E1]))
    assert away @ E0 > 0 > away @ E1
    assert away @ E2 == 0
    with pytest.raises(NoDirection):
        direction(np.stack([E0, -E0]))


def test_an_item_finds_itself_and_others_when_it_is_left_out(
    searcher: Searcher, full: Collection
) -> None:
    vector, key = searcher.example(full, "item-7", None, None)
    query = Query(vector[None], top_k=5, by_item=False)
    assert searcher.find(full, query).hits[0].item.id == "item-7"
    others = searcher.find(full, Query(vector[None], without=[key], top_k=5)).hits
    assert "item-7" not in {hit.item.id for hit in others}
    assert len({hit.item.id for hit in others}) == 5
    assert [hit.score for hit in others] == sorted([hit.score for hit in others], reverse=True)


def test_the_times_of_a_window_are_that_window_alone(
    store: Store, collection: Collection, searcher: Searcher
) -> None:
    """Though others overlap it."""
    new = new_item(1, 9)
    overlapping = dataclasses.replace(new, start_s=np.arange(9.0), end_s=np.arange(9.0) + 5)
    store.items.add(collection, [overlapping], QUOTA)
    for start_s, end_s in ((4.0, 9.0), (4.0004, 8.9996)):
        vector, _ = searcher.example(collection, "item-1", start_s, end_s)
        (hit,) = searcher.find(collection, Query(vector[None], by_item=False, top_k=1)).hits
        assert (hit.start_s, hit.end_s) == (4.0, 9.0)
        assert hit.score > 0.999
    vector, _ = searcher.example(collection, "item-1", 4.0, 8.0)
    (hit,) = searcher.find(collection, Query(vector[None], by_item=False, top_k=1)).hits
    assert hit.score < 0.9  # the mean of all that touch it


def test_a_stretch_of_an_item_is_an_example_of_its_own(
    searcher: Searcher, full: Collection
) -> None:
    vector, _ = searcher.example(full, "item-2", 5.5, 9.0)
    hit = searcher.find(full, Query(vector[None], by_item=False, top_k=1)).hits[0]
    assert (hit.item.id, hit.start_s, hit.end_s) == ("item-2", 5.0, 10.0)
    assert hit.score > 0.999
    with pytest.raises(NoDirection, match=r"lasts 15 s: nothing of it lies between 90\.0 and"):
        searcher.example(full, "item-2", 90.0, 91.0)
    with pytest.raises(ItemNotFound):
        searcher.example(full, "item-99", None, None)


def test_a_recording_of_a_day_is_an_example_a_part_at_a_time(
    searcher: Searcher, full: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, key = searcher.example(full, "item-2", None, None)
    sizes: list[int] = []

    def watched(*args: Any) -> Vectors:
        found = fetched(*args)
        sizes.append(len(found))
        return found

    monkeypatch.setattr("service.collections.windows.fetched", watched)
    monkeypatch.setattr("service.collections.windows.ROWS", 2)
    again, same = searcher.example(full, "item-2", None, None)
    assert max(sizes) == 2
    assert key == same
    np.testing.assert_allclose(again, whole, rtol=1e-5, atol=1e-6)


def test_a_percentile_is_the_share_of_random_pairs_that_score_less(
    searcher: Searcher, full: Collection, store: Store
) -> None:
    background = searcher.background(full)
    assert len(background) == 4096
    windows = store.windows.all(full)
    lengths = np.linalg.norm(windows.vectors, axis=1)
    cosines = windows.vectors @ windows.vectors.T / np.outer(lengths, lengths)
    differ = windows.items[:, None] != windows.items[None]
    for score in (-0.3, 0.0, 0.4):
        share = 100 * (cosines[differ] < score).mean()
        assert percentile(background, score) == pytest.approx(share, abs=2.5)
    assert percentile(background, 1.0) == 100
    assert percentile(np.empty(0), 0.5) is None


def test_hits_below_a_percentile_are_left_out(searcher: Searcher, full: Collection) -> None:
    vector, key = searcher.example(full, "item-1", None, None)
    everything = Query(vector[None], without=[key], top_k=100)
    all_hits = searcher.find(full, everything).hits
    some = searcher.find(
        full, Query(vector[None], without=[key], top_k=100, least_percentile=80)
    ).hits
    assert some == [hit for hit in all_hits if (hit.percentile or 0) >= 80]
    assert 0 < len(some) < len(all_hits) == 29


def test_one_item_alone_has_no_percentile(
    searcher: Searcher, store: Store, collection: Collection
) -> None:
    store.items.add(collection, [new_item(1)], QUOTA)
    collection = store.collections.get("ann", "birds")
    vector, _ = searcher.example(collection, "item-1", None, None)
    (hit,) = searcher.find(collection, Query(vector[None], filter=Filter(ids=["item-1"]))).hits
    assert hit.percentile is None


def recordings(vectors: Floats) -> Vectors:
    n = len(vectors)
    return Vectors(np.arange(n), np.arange(n), np.zeros(n), np.ones(n), vectors)


def with_copies(n: int = 300, n_copies: int = 20, noise: float = 0.15) -> Vectors:
    """Clusters of sounds alike, and some of them again with a little noise."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((12, 64))
    originals = centres[rng.integers(12, size=n)] + rng.standard_normal((n, 64))
    copies = originals[:n_copies] + noise * rng.standard_normal((n_copies, 64))
    return recordings(np.concatenate([originals, copies]).astype(np.float32))


def test_copies_are_found_among_sounds_alike() -> None:
    found = find_duplicates(with_copies(), confidence=0.99)
    true = {(i, 300 + i) for i in range(20)}
    pairs = {pair.items for pair in found}
    assert true <= pairs
    assert len(pairs - true) <= 6  # of 320 items, at one in a hundred
    assert all(pair.confidence >= 0.99 for pair in found)


def test_without_copies_there_are_few_alarms() -> None:
    assert len(find_duplicates(with_copies(n_copies=0), confidence=0.999)) <= 2


def test_more_confidence_means_fewer_pairs() -> None:
    windows = with_copies(noise=0.4)
    sizes = [len(find_duplicates(windows, confidence)) for confidence in (0.6, 0.9, 0.999)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2]


def test_few_items_are_duplicates_only_when_all_but_the_same() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 8)).astype(np.float32)
    assert find_duplicates(recordings(vectors), 0.99) == []
    same = np.concatenate([vectors, 2 * vectors[:1]])
    assert [pair.items for pair in find_duplicates(recordings(same), 0.99)] == [(0, 3)]
    assert find_duplicates(recordings(vectors[:0]), 0.99) == []


def test_windows_of_one_item_are_no_duplicates_of_each_other() -> None:
    windows = recordings(np.ones((12, 4), np.float32))
    same = Vectors(
        windows.windows, np.zeros(12, np.int64), windows.start_s, windows.end_s, windows.vectors
    )
    assert find_duplicates(same, 0.99) == []


def test_more_windows_than_can_be_compared_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("service.collections.duplicates.MAX_WINDOWS", 5)
    with pytest.raises(TooManyWindows, match="at most 5"):
        find_duplicates(recordings(np.ones((6, 4), np.float32)), 0.99)
