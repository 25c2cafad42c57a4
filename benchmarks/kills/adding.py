"""Recordings and labels are added and deleted, and collections come and go."""

from contextlib import suppress

import numpy as np
from sqlalchemy import func, select

from benchmarks.kills.said import NOBODY, TERMS, Said, item, say, vector
from service.collections import schema
from service.collections.records import CollectionNotFound, NewLabel, Quota
from service.collections.store import Store

MAIN, SIDE = "main", "side"
SIDE_ITEMS = 30
EVERYTHING = 10_000_000


def before(store: Store) -> None:
    for name in (MAIN, SIDE):
        with suppress(CollectionNotFound):
            store.collections.delete("", name)


def work(store: Store, first: int) -> None:
    main, _ = store.collections.put("", MAIN, TERMS, Quota())
    for number in range(first, first + 1_000_000):
        say("adding", number)
        store.items.add(main, [item(number)], Quota())
        say("added", number)
        store.labels.add(main, [NewLabel(str(number), "x")], "me")
        if number % 3 == 0:
            say("deleting", number)
            store.items.delete(main, str(number))
            say("deleted", number)
        if number % 7 == 0:
            side, _ = store.collections.put("", SIDE, TERMS, Quota())
            store.items.add(side, [item(n) for n in range(SIDE_ITEMS)], Quota())
            store.collections.delete("", SIDE)


def check(store: Store, said: Said) -> None:
    main = store.collections.get("", MAIN)
    keys = {one.key: int(one.id) for one in store.items.page(main, limit=EVERYTHING)}
    said.check(set(keys.values()))
    vectors = store.windows.all(main)
    for key, row in zip(vectors.items.tolist(), vectors.vectors, strict=True):
        np.testing.assert_allclose(row, vector(keys[key])[0], rtol=1e-2, atol=1e-3)
    assert (main.n_items, main.n_windows) == (len(keys), len(vectors))
    check_rows(store)
    for number in sorted(keys.values())[-3:]:
        near = store.index.nearest(main, vector(number)[0], 1, without=NOBODY)
        assert keys[int(near.items[0])] == number


def check_rows(store: Store) -> None:
    """Nothing hangs on an item that is not there, and no collection is half deleted."""
    known = select(schema.items.c.id)
    with store.database.read() as connection:
        for table in (schema.windows, schema.labels, schema.audio, schema.metadata_values):
            orphans = select(func.count()).where(table.c.item.not_in(known))
            assert connection.execute(orphans).scalar_one() == 0, table.name
        half = select(func.count()).where(schema.collections.c.is_deleted)
        assert connection.execute(half).scalar_one() == 0
