"""A collection moves to another model and back."""

from contextlib import suppress
from dataclasses import replace

import numpy as np

from benchmarks.kills.adding import check_rows
from benchmarks.kills.said import NOBODY, TERMS, Said, item, say, vector
from service.collections.records import Collection, CollectionDiffers, CollectionNotFound, Quota
from service.collections.store import Store

NAME = "moving"
ITEMS, WINDOWS = 12, 4
SPACES = (TERMS, replace(TERMS, model="other", space_id="other-space"))


def before(store: Store) -> None:
    with suppress(CollectionNotFound):
        store.collections.delete("", NAME)
    collection, _ = store.collections.put("", NAME, TERMS, Quota())
    store.items.add(collection, [item(n, WINDOWS, 1000) for n in range(ITEMS)], Quota())


def work(store: Store, first: int) -> None:
    for number in range(first, first + 1_000_000):
        say("adding", number)
        move(store, store.collections.get("", NAME))
        say("added", number)


def move(store: Store, collection: Collection) -> None:
    """To the space in which it is not, or where it is on its way to."""
    target = SPACES[collection.terms.space_id == TERMS.space_id]
    with suppress(CollectionDiffers):
        begun = store.reembedding.begin(collection, target, Quota())
        for one in store.reembedding.left(begun):
            made = item(int(one.id), WINDOWS)
            rows = vector(int(one.id), target.space_id, WINDOWS)
            store.reembedding.keep(begun, one, made.start_s, made.end_s, rows)
        assert store.reembedding.finish(begun) is not None


def check(store: Store, said: Said) -> None:
    """All of it is of one space; and the next move goes on, and comes to its end."""
    check_whole(store)
    before = store.collections.get("", NAME)
    move(store, before)
    assert store.collections.get("", NAME).terms != before.terms
    check_whole(store)


def check_whole(store: Store) -> None:
    collection = store.collections.get("", NAME)
    keys = {one.key: int(one.id) for one in store.items.page(collection)}
    assert sorted(keys.values()) == list(range(ITEMS))
    vectors, space_id = store.windows.all(collection), collection.terms.space_id
    assert collection.n_windows == len(vectors) == ITEMS * WINDOWS
    for key, number in keys.items():
        rows = vectors.vectors[vectors.items == key]
        np.testing.assert_allclose(rows, vector(number, space_id, WINDOWS), rtol=1e-2, atol=1e-3)
    near = store.index.nearest(collection, vector(3, space_id, WINDOWS)[1], 1, without=NOBODY)
    assert keys[int(near.items[0])] == 3
    check_rows(store)
