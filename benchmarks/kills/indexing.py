"""The index of searches that need not be exact is made again and again, while items come and go.

In SQLite's folder that is a file of clusters; PostgreSQL keeps its graph in step by itself, once it
is made.
"""

from contextlib import suppress

from benchmarks.kills.said import NOBODY, TERMS, Said, item, say, vector
from service.collections.approximate import SUFFIX, Approximate
from service.collections.clustered import read
from service.collections.folder import INDEXES
from service.collections.records import CollectionNotFound, Quota
from service.collections.store import Store

NAME = "index"
WINDOWS = 50  # of an item
EVERYTHING = 10_000_000


def before(store: Store) -> None:
    with suppress(CollectionNotFound):
        store.collections.delete("", NAME)


def work(store: Store, first: int) -> None:
    collection, _ = store.collections.put("", NAME, TERMS, Quota())
    for number in range(first, first + 1_000_000):
        say("adding", number)
        store.items.add(collection, [item(number, WINDOWS, 100)], Quota())
        say("added", number)
        store.index.prepare(store.collections.get("", NAME))
        if number % 3 == 0:
            say("deleting", number)
            store.items.delete(collection, str(number))
            say("deleted", number)


def check(store: Store, said: Said) -> None:
    """No half of a file is left, what is there is whole, and searches find what there is."""
    collection = store.collections.get("", NAME)
    keys = {one.key: int(one.id) for one in store.items.page(collection, limit=EVERYTHING)}
    said.check(set(keys.values()))
    if isinstance(store.index, Approximate):
        for path in (store.index.folder).glob("*"):
            assert path.name.endswith(SUFFIX), f"left in {INDEXES}: {path.name}"
            read(path)
    if not keys:
        return
    store.index.prepare(collection)
    for number in [*sorted(keys.values())[-3:], *sorted(said.gone)[-3:]]:
        query = vector(number, n_windows=WINDOWS)[-1]
        near = store.index.nearest(collection, query, 1, without=NOBODY, exact=False)
        assert not near.is_exact
        is_there = number in keys.values()
        assert (keys[int(near.items[0])] == number) == is_there, f"{number}: {is_there}"
