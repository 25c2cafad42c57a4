"""Collections on their way to another model: whole until the end, and gone on with."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, select

from service.collections import schema
from service.collections.filters import Filter
from service.collections.gathering import Plan, gather
from service.collections.records import (
    Collection,
    CollectionDiffers,
    CollectionNotFound,
    Item,
    ItemNotFound,
    NewLabel,
    Quota,
    QuotaExceeded,
    StoreBusy,
    Terms,
)
from service.collections.reembedding import AudioNotKept, Move
from service.collections.search import Query, Searcher
from service.collections.store import Store
from service.collections.teaching import Lesson
from service.formats.exports import Part, parts_of
from tests.service.collections.conftest import NOBODY, QUOTA, TERMS, Reopen, new_item

OTHER = Terms("other", "space-of-other", 24, 2.0, 2.0, keeps_audio=True)
N = 5


@pytest.fixture
def kept(store: Store) -> Collection:
    """Five recordings with their audio, one of them labelled."""
    terms = replace(TERMS, keeps_audio=True)
    made, _ = store.collections.put("ann", "birds", terms, QUOTA)
    new = [new_item(i, audio=b"sound %d" % i, metadata={"n": i}) for i in range(N)]
    store.items.add(made, new, QUOTA)
    store.labels.add(made, [NewLabel("item-1", "owl", "positive", 1.0, 2.5)], "ann")
    return store.collections.get("ann", "birds")


def vectors_of(item: Item, n_windows: int = 2) -> np.ndarray:
    rng = np.random.default_rng(len(item.id) + int(item.id.split("-")[1]))
    return rng.standard_normal((n_windows, OTHER.dimensions)).astype(np.float32)


def move_on(store: Store, move: Move, most: int = N) -> None:
    for item in store.reembedding.left(move)[:most]:
        start_s = 2.0 * np.arange(2)
        store.reembedding.keep(move, item, start_s, start_s + 2, vectors_of(item))


def test_the_old_one_answers_until_the_new_one_is_complete(store: Store, kept: Collection) -> None:
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    move_on(store, move, 3)
    assert store.reembedding.finish(move) is None
    assert store.reembedding.n_left(move) == 2
    now = store.collections.get("ann", "birds")
    assert now == kept
    assert store.collections.page("ann") == store.collections.all() == [kept]
    near = store.index.nearest(now, new_item(2).vectors[1], 1, without=NOBODY)
    assert near.score[0] > 0.999
    assert len(store.windows.all(now)) == 3 * N
    assert store.windows.sample(now, 100).vectors.shape[1] == TERMS.dimensions
    first = store.items.get(now, "item-0")
    assert store.windows.of(now, [first.key]).vectors.shape == (3, TERMS.dimensions)
    (some,) = store.windows.touching(now, first.key, None, None)
    assert some.vectors.shape == (3, TERMS.dimensions)


def test_everything_but_the_vectors_stays(store: Store, kept: Collection) -> None:
    before = store.items.page(kept)
    labels = store.labels.page(kept)
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    move_on(store, move)
    moved = store.reembedding.finish(move)
    assert moved == store.collections.get("ann", "birds")
    assert moved.terms == OTHER
    assert (moved.n_items, moved.n_windows) == (N, 2 * N)
    assert moved.revision > kept.revision
    assert moved.created_at == kept.created_at
    after = store.items.page(moved)
    assert [replace(item, n_windows=3, n_bytes=0) for item in after] == [
        replace(item, n_bytes=0) for item in before
    ]
    assert moved.n_bytes == sum(item.n_bytes for item in after)
    assert after[0].n_bytes - before[0].n_bytes == 4 * (2 * 24 - 3 * TERMS.dimensions)
    assert store.labels.page(moved) == labels
    assert b"".join(store.items.audio(moved, after[3])) == b"sound 3"
    near = store.index.nearest(moved, vectors_of(after[3])[1], 1, without=NOBODY)
    assert (int(near.items[0]), float(near.start_s[0])) == (after[3].key, 2.0)
    with store.database.read() as connection:
        assert connection.execute(select(func.count(schema.windows.c.id))).scalar() == 2 * N
        assert connection.execute(select(func.count(schema.collections.c.id))).scalar() == 1


def test_what_was_computed_before_an_end_is_there_when_one_goes_on(
    kept: Collection, store: Store, reopen: Reopen
) -> None:
    move_on(store, store.reembedding.begin(kept, OTHER, QUOTA), 3)
    again = reopen()
    assert again.collections.get("ann", "birds") == kept
    move = again.reembedding.begin(kept, OTHER, QUOTA)
    assert [item.id for item in again.reembedding.left(move)] == ["item-3", "item-4"]
    move_on(again, move)
    assert again.reembedding.finish(move) is not None


def test_what_is_deleted_and_added_on_the_way_counts(store: Store, kept: Collection) -> None:
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    (first, *_) = store.reembedding.left(move)
    move_on(store, move)
    store.items.delete(kept, "item-2")
    store.items.add(kept, [new_item(9, audio=b"nine")], QUOTA)
    store.labels.add(kept, [NewLabel("item-9", "wren")], "ben")
    assert store.reembedding.finish(move) is None
    move_on(store, move)
    moved = store.reembedding.finish(move)
    assert moved is not None
    ids = [item.id for item in store.items.page(moved)]
    assert ids == ["item-0", "item-1", "item-3", "item-4", "item-9"]
    assert [label.label for label in store.labels.page(moved)] == ["owl", "wren"]
    store.items.delete(moved, "item-0")
    assert store.reembedding.begin(moved, OTHER, QUOTA).old.n_items == N - 1
    gone = store.reembedding.begin(moved, OTHER, QUOTA)
    store.reembedding.keep(gone, first, np.zeros(1), np.ones(1), vectors_of(first, 1))
    assert store.reembedding.n_left(gone) == N - 1


def test_items_without_audio_are_refused_by_name(store: Store, kept: Collection) -> None:
    store.items.add(kept, [new_item(100 + i) for i in range(25)], QUOTA)
    with pytest.raises(AudioNotKept, match="25 items .* item-100, item-101, .*and 5 more"):
        store.reembedding.begin(kept, OTHER, QUOTA)
    assert store.collections.all() == [store.collections.get("ann", "birds")]


def test_one_move_at_a_time_which_can_be_given_up(store: Store, kept: Collection) -> None:
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    move_on(store, move, 2)
    third = replace(OTHER, space_id="space-of-third")
    with pytest.raises(CollectionDiffers, match="on its way to other, space space-of-other"):
        store.reembedding.begin(kept, third, QUOTA)
    store.reembedding.give_up(kept)
    assert len(store.windows.all(kept)) == 3 * N
    (item, *_) = store.items.page(kept)
    for call in (
        lambda: store.reembedding.give_up(kept),
        lambda: store.reembedding.finish(move),
        lambda: store.reembedding.keep(move, item, np.zeros(1), np.ones(1), vectors_of(item, 1)),
    ):
        with pytest.raises(CollectionNotFound):
            call()
    assert store.reembedding.n_left(store.reembedding.begin(kept, third, QUOTA)) == N


def test_vectors_that_would_be_too_large_are_refused(store: Store, kept: Collection) -> None:
    with pytest.raises(QuotaExceeded):
        store.reembedding.begin(kept, OTHER, Quota(n_bytes=kept.n_bytes + 10))
    assert store.collections.all() == [kept]


def test_a_collection_that_is_deleted_takes_its_move_along(store: Store, kept: Collection) -> None:
    move_on(store, store.reembedding.begin(kept, OTHER, QUOTA), 3)
    store.collections.delete("ann", "birds")
    with store.database.read() as connection:
        for table in (schema.collections, schema.windows, schema.items, schema.labels):
            assert connection.execute(select(func.count()).select_from(table)).scalar() == 0


def test_what_is_left_of_the_old_one_goes_at_the_next_start(
    store: Store, kept: Collection, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    move_on(store, move)
    monkeypatch.setattr(store.collections, "empty", lambda key: None)  # killed before
    assert store.reembedding.finish(move) is not None
    again = reopen()
    now = again.collections.get("ann", "birds")
    assert (now.terms, now.n_windows, len(again.windows.all(now))) == (OTHER, 2 * N, 2 * N)
    with again.database.read() as connection:
        assert connection.execute(select(func.count(schema.windows.c.id))).scalar() == 2 * N


def test_a_search_that_a_move_overtakes_is_to_be_asked_again(
    store: Store, kept: Collection
) -> None:
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    move_on(store, move)
    query = Query(new_item(2).vectors[:1])
    assert Searcher(store).find(kept, query).hits
    store.reembedding.finish(move)
    with pytest.raises((StoreBusy, CollectionNotFound)):
        Searcher(store).find(kept, query)


def rest_of_an_export(store: Store, collection: Collection) -> Iterator[Part]:
    """What is still to be read, after the first part."""
    parts = parts_of(store, collection)
    next(parts)
    return parts


READING: dict[str, Callable[[Store, Collection], object]] = {
    "items": lambda store, old: store.items.page(old),
    "item": lambda store, old: store.items.get(old, "item-0"),
    "names": lambda store, old: store.items.by_key(old, [1, 2, 3]),
    "content": lambda store, old: store.items.with_content(old, [new_item(1).sha256]),
    "filtered": lambda store, old: store.items.keys(old, Filter(metadata={"n": [1]})),
    "size": lambda store, old: store.items.size(old, Filter()),
    "labels": lambda store, old: store.labels.page(old),
    "a label": lambda store, old: store.labels.delete(old, 1),
    "an export": lambda store, old: list(parts_of(store, old)),
    "a lesson": lambda store, old: gather(store, old, Plan((), {1: "a"}, 3), Lesson()),
}


@pytest.mark.parametrize("end", ["moved", "deleted", "being deleted"])
@pytest.mark.parametrize("read", READING.values(), ids=READING)
def test_a_collection_that_has_gone_is_not_taken_for_an_empty_one(
    store: Store,
    kept: Collection,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Store, Collection], object],
    end: str,
) -> None:
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    move_on(store, move)
    if end == "being deleted":
        monkeypatch.setattr(store.collections, "empty", lambda key: None)
    if end == "moved":
        store.reembedding.finish(move)
    else:
        store.collections.delete("ann", "birds")
    with pytest.raises(CollectionNotFound, match=r"ask again"):
        read(store, kept)


def test_an_export_that_a_move_overtakes_is_not_cut_short(
    store: Store, kept: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.formats.exports.ROWS", 6)
    move = store.reembedding.begin(kept, OTHER, QUOTA)
    move_on(store, move)
    parts = rest_of_an_export(store, kept)
    store.reembedding.finish(move)
    with pytest.raises(CollectionNotFound, match="ask again"):
        list(parts)


@pytest.mark.parametrize("n_bytes", [3, 3 << 20])
def test_the_audio_of_an_item_is_all_of_it_or_an_error(
    store: Store, kept: Collection, n_bytes: int
) -> None:
    store.items.add(kept, [new_item(9, audio=bytes(n_bytes))], QUOTA)
    item = store.items.get(kept, "item-9")
    assert b"".join(store.items.audio(kept, item)) == bytes(n_bytes)
    parts = store.items.audio(kept, item)
    if n_bytes > 3:
        next(parts)
    store.items.delete(kept, "item-9")
    with pytest.raises(ItemNotFound, match="item-9"):
        list(parts)
