"""Both indexes against plain NumPy."""

from pathlib import Path

import numpy as np
import pytest

from service.collections import exact
from service.collections.approximate import Approximate
from service.collections.filters import Filter
from service.collections.records import Collection, Floats, NewItem
from service.collections.store import Store, open_store
from tests.service.collections.conftest import NOBODY, QUOTA, TERMS, new_item

TOLERANCE = 2e-3  # of half vectors


@pytest.fixture
def items(store: Store, collection: Collection) -> list[NewItem]:
    new = [new_item(i, 1 + i % 4, metadata={"site": "AB"[i % 2]}) for i in range(40)]
    store.items.add(collection, new, QUOTA)
    return new


@pytest.fixture
def full(store: Store, items: list[NewItem]) -> Collection:
    return store.collections.get("ann", "birds")


def cosines(items: list[NewItem], query: Floats) -> Floats:
    vectors = np.concatenate([item.vectors for item in items])
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    result: Floats = vectors @ query / lengths
    return result


QUERY = np.random.default_rng(99).standard_normal(16).astype(np.float32)


def test_the_nearest_windows_are_those_of_numpy(
    store: Store, full: Collection, items: list[NewItem]
) -> None:
    found = store.index.nearest(full, QUERY, 10, without=NOBODY)
    score = cosines(items, QUERY)
    best = np.argsort(-score)[:10]
    np.testing.assert_allclose(found.score, score[best], atol=TOLERANCE)
    np.testing.assert_array_equal(found.windows - found.windows.min(), best - best.min())
    starts = np.concatenate([item.start_s for item in items])
    np.testing.assert_array_equal(found.start_s, starts[best])
    assert found.is_exact


def test_the_best_window_of_each_item(store: Store, full: Collection, items: list[NewItem]) -> None:
    found = store.index.nearest(full, QUERY, 12, without=NOBODY, by_item=True)
    each = np.array([cosines([item], QUERY).max() for item in items])
    np.testing.assert_allclose(found.score, np.sort(each)[::-1][:12], atol=TOLERANCE)
    assert len(set(found.items.tolist())) == 12


def test_a_filter_comes_before_the_search(
    store: Store, full: Collection, items: list[NewItem]
) -> None:
    only = Filter(metadata={"site": ["B"]})
    found = store.index.nearest(full, QUERY, 100, filter=only, without=NOBODY, by_item=True)
    sites = store.items.by_key(full, found.items.tolist())
    assert len(found.items) == 20
    assert {item.metadata["site"] for item in sites.values()} == {"B"}
    none = store.index.nearest(full, QUERY, 5, filter=Filter(ids=[]), without=NOBODY)
    assert len(none.items) == 0


def test_some_items_may_be_left_out(store: Store, full: Collection) -> None:
    found = store.index.nearest(full, QUERY, 3, without=NOBODY, by_item=True)
    less = store.index.nearest(full, QUERY, 3, without=found.items[:2], by_item=True)
    assert less.items[0] == found.items[2]


def test_what_is_added_is_found_and_what_is_deleted_is_not(
    store: Store, full: Collection, items: list[NewItem]
) -> None:
    assert store.index.nearest(full, items[5].vectors[0], 1, without=NOBODY).score[0] > 0.999
    store.items.delete(full, "item-5")
    new = new_item(77, 1)
    store.items.add(full, [new], QUOTA)
    full = store.collections.get("ann", "birds")
    assert store.index.nearest(full, items[5].vectors[0], 1, without=NOBODY).score[0] < 0.99
    assert store.index.nearest(full, new.vectors[0], 1, without=NOBODY).score[0] > 0.999


def test_an_empty_collection_has_nothing_near(store: Store, collection: Collection) -> None:
    assert len(store.index.nearest(collection, QUERY, 5, without=NOBODY).items) == 0
    assert len(store.index.nearest(collection, QUERY, 5, without=NOBODY, by_item=True).items) == 0


def test_a_sample_is_of_the_collection_and_always_the_same(store: Store, full: Collection) -> None:
    some, same = store.windows.sample(full, 20), store.windows.sample(full, 20)
    assert 5 <= len(some) <= 40
    np.testing.assert_array_equal(some.windows, same.windows)
    assert len(store.windows.sample(full, 1000)) == full.n_windows


def test_the_windows_of_some_items(store: Store, full: Collection, items: list[NewItem]) -> None:
    (item,) = store.items.named(full, ["item-7"])
    found = store.windows.of(full, [item.key])
    np.testing.assert_allclose(found.vectors, items[7].vectors, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_blocks_of_any_size_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(exact, "ROWS", rows)
    monkeypatch.setattr("service.collections.windows.ROWS", rows)
    store = open_store(tmp_path)
    collection, _ = store.collections.put("", "c", TERMS, QUOTA)
    items = []
    for number in range(30):
        items.append(new_item(number))
        store.items.add(collection, [items[-1]], QUOTA)
        if number % 7 == 3:
            collection = store.collections.get("", "c")
            store.index.nearest(collection, QUERY, 3, without=NOBODY)
    collection = store.collections.get("", "c")
    found = store.index.nearest(collection, QUERY, 9, without=NOBODY)
    np.testing.assert_allclose(found.score, np.sort(cosines(items, QUERY))[::-1][:9], rtol=1e-5)
    best = store.index.nearest(collection, QUERY, 9, without=NOBODY, by_item=True)
    each = np.sort([cosines([item], QUERY).max() for item in items])[::-1][:9]
    np.testing.assert_allclose(best.score, each, rtol=1e-5)
    store.close()


def test_what_does_not_fit_into_memory_is_searched_all_the_same(tmp_path: Path) -> None:
    with_memory, without = open_store(tmp_path), open_store(tmp_path, memory_bytes=100)
    collection, _ = with_memory.collections.put("", "c", TERMS, QUOTA)
    with_memory.items.add(collection, [new_item(i) for i in range(9)], QUOTA)
    collection = without.collections.get("", "c")
    found = [s.index.nearest(collection, QUERY, 4, without=NOBODY) for s in (with_memory, without)]
    np.testing.assert_array_equal(found[0].windows, found[1].windows)
    for store in (with_memory, without):
        store.close()


def test_what_is_deleted_is_held_in_memory_no_longer(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert isinstance(store.index, Approximate)
    held = store.index._exact
    collection, _ = store.collections.put("", "c", TERMS, QUOTA)
    store.items.add(collection, [new_item(1)], QUOTA)
    store.index.nearest(store.collections.get("", "c"), QUERY, 1, without=NOBODY)
    assert held._held
    store.collections.delete("", "c")
    assert not held._held
    assert not held._reading
    assert not store.index._states
    store.close()
