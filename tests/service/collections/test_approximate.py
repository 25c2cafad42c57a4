"""Searches that look at some of the vectors, against those that look at all."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.collections import approximate
from service.collections.approximate import Approximate
from service.collections.clustered import Damaged, read
from service.collections.filters import EVERYTHING, Filter
from service.collections.folder import INDEXES
from service.collections.records import Collection, Floats, NewItem
from service.collections.store import Store, open_store
from tests.service.collections.conftest import NOBODY, QUOTA, TERMS, new_item
from tests.service.conftest import until

pytest.importorskip("faiss")
N = 300  # items, of three windows
QUERY = np.random.default_rng(5).standard_normal(16).astype(np.float32)


def items(first: int = 0, n: int = N) -> list[NewItem]:
    return [new_item(i, metadata={"site": "AB"[i % 2]}) for i in range(first, first + n)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path, approximate_from=100)
    collection, _ = store.collections.put("ann", "birds", TERMS, QUOTA)
    store.items.add(collection, items(), QUOTA)
    yield store
    store.close()


@pytest.fixture
def full(store: Store) -> Collection:
    """A collection whose clusters are made."""
    collection = now(store)
    assert store.index.prepare(collection)
    return collection


def now(store: Store) -> Collection:
    return store.collections.get("ann", "birds")


def both(store: Store, query: Floats = QUERY, k: int = 10, **asked: Any) -> tuple[Any, Any]:
    """What the search finds that looks at some, and that looks at all."""
    asked = {"without": NOBODY} | asked
    some = store.index.nearest(now(store), query, k, exact=False, **asked)
    return some, store.index.nearest(now(store), query, k, **asked)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / INDEXES).glob("*"))


def test_it_finds_nearly_what_the_exact_search_finds(store: Store, full: Collection) -> None:
    n_found = 0
    for item in items(n=40):
        some, true = both(store, item.vectors[1])
        assert (some.is_exact, true.is_exact) == (False, True)
        assert some.windows[0] == true.windows[0]
        n_found += len(set(some.windows.tolist()) & set(true.windows.tolist()))
        common = np.isin(true.windows, some.windows)
        np.testing.assert_allclose(
            true.score[common], some.score[np.isin(some.windows, true.windows)], atol=1e-6
        )
    assert n_found >= 0.9 * 400


def test_without_room_for_a_thread_the_search_is_exact_and_the_store_closes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_room)
        some, true = both(store)
    assert some.is_exact
    assert some.windows.tolist() == true.windows.tolist()
    store.index.close()


@pytest.mark.parametrize("by_item", [False, True])
@pytest.mark.parametrize("few", [1, 10_000])
def test_filters_are_right(
    store: Store, full: Collection, monkeypatch: pytest.MonkeyPatch, by_item: bool, few: int
) -> None:
    monkeypatch.setattr(approximate, "FEW", few)
    monkeypatch.setattr("service.collections.clustered.LEAST_PROBES", 1000)
    first = both(store)[1].items[:2]
    for only in (
        EVERYTHING,
        Filter(metadata={"site": ["B"]}),
        Filter(ids=["item-3", "item-4", "item-7"]),
        Filter(ids=[]),
    ):
        asked = {"filter": only, "without": first, "by_item": by_item}
        some, true = both(store, **asked)
        np.testing.assert_array_equal(some.windows, true.windows)
        np.testing.assert_allclose(some.score, true.score, atol=1e-6)


def test_what_is_deleted_is_gone_at_once_and_from_the_disk(
    store: Store, full: Collection, tmp_path: Path
) -> None:
    deleted = items()[7]
    assert both(store, deleted.vectors[0], 1)[0].score[0] > 0.999
    assert files(tmp_path) == [f"{full.key}.clusters"]
    store.items.delete(full, "item-7")
    assert files(tmp_path) == []
    some, true = both(store, deleted.vectors[0])
    assert some.windows[0] == true.windows[0]
    assert not some.is_exact
    assert store.index.prepare(now(store))
    assert files(tmp_path) == [f"{full.key}.clusters"]
    assert both(store, deleted.vectors[0], 1)[0].score[0] < 0.99


def test_what_is_added_is_found_at_once(store: Store, full: Collection) -> None:
    for number in (1000, 1001):
        store.items.add(full, items(number, 1), QUOTA)
        some, _ = both(store, new_item(number).vectors[2], 1)
        assert (some.is_exact, some.score[0] > 0.999) == (False, True)
    store.items.delete(full, "item-1000")
    assert both(store, new_item(1000).vectors[2], 1)[0].score[0] < 0.99


def test_searches_are_exact_until_it_is_made_beside_them(store: Store, tmp_path: Path) -> None:
    assert both(store)[0].is_exact
    until(lambda: not both(store)[0].is_exact)
    assert len(files(tmp_path)) == 1


def test_another_process_reads_the_file(store: Store, full: Collection, tmp_path: Path) -> None:
    before = read(tmp_path / INDEXES / files(tmp_path)[0])
    other = open_store(tmp_path, approximate_from=100)
    assert other.index.prepare(now(other))
    some, _ = both(other)
    np.testing.assert_array_equal(some.windows, both(store)[0].windows)
    assert read(tmp_path / INDEXES / files(tmp_path)[0]).about == before.about
    other.close()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[: len(content) // 2],
        lambda content: content[:-3],
        lambda content: b"",
        lambda content: b"\xff" * 40,
        lambda content: content + b"more",
        lambda content: b"x" * 100 + b"{}" + (2).to_bytes(8, "big"),
    ],
)
def test_a_damaged_file_is_made_again(
    store: Store, full: Collection, tmp_path: Path, damage: Any
) -> None:
    (path,) = (tmp_path / INDEXES).iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Damaged):
        read(path)
    other = open_store(tmp_path, approximate_from=100)
    assert both(other)[0].is_exact
    assert other.index.prepare(now(other))
    np.testing.assert_array_equal(both(other)[0].windows, both(store)[0].windows)
    assert read(path).about.n == 3 * N
    other.close()


def test_a_file_of_what_was_deleted_in_a_crash_goes_at_the_next_start(
    store: Store, full: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (tmp_path / INDEXES).iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(store.items, "_forget", lambda key: None)  # killed between the two
        store.items.delete(full, "item-3")
    half = path.with_name("1.clusters.999999999.tmp")
    half.write_bytes(b"half")
    open_store(tmp_path, approximate_from=100).close()
    assert files(tmp_path) == []


def test_a_file_that_is_made_while_something_is_deleted_goes_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = store.index
    assert isinstance(index, Approximate)
    made = index._made

    def made_and_deleted(collection: Collection) -> Any:
        clusters = made(collection)
        store.items.delete(collection, "item-3")
        return clusters

    monkeypatch.setattr(index, "_made", made_and_deleted)
    assert store.index.prepare(now(store))
    assert files(tmp_path) == []


def test_many_changes_make_it_anew(
    store: Store, full: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "LEAST_GROWTH", 10)
    index = store.index
    assert isinstance(index, Approximate)
    state = index._states[full.key]
    store.items.add(full, items(2000, 20), QUOTA)
    both(store)
    assert index._states[full.key] is state  # not so soon
    state.not_before = 0.0
    both(store)
    until(lambda: index._states[full.key] is not state)
    assert index._states[full.key].clusters.about.n == 3 * (N + 20)  # type: ignore[union-attr]


def test_deleted_and_moved_collections_leave_no_file(
    store: Store, full: Collection, tmp_path: Path
) -> None:
    store.collections.delete("ann", "birds")
    assert files(tmp_path) == []


def test_without_memory_or_faiss_or_many_windows_it_is_exact(
    store: Store, full: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = open_store(tmp_path, approximate_from=100, memory_bytes=3 * N * 16 - 1)
    few = open_store(tmp_path)
    for other in (small, few):
        assert not other.index.prepare(now(other))
        assert both(other)[0].is_exact
        other.close()
    monkeypatch.setattr(approximate, "find_spec", lambda name: None)
    assert both(store)[0].is_exact


def test_a_full_disk_leaves_the_old_file_and_stops_no_search(
    store: Store, full: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (tmp_path / INDEXES).iterdir()
    content = path.read_bytes()

    def fails(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.atomic.os.fsync", fails)
    assert store.index.prepare(full)
    assert path.read_bytes() == content
    assert files(tmp_path) == [path.name]
    assert not both(store)[0].is_exact
