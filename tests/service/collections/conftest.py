"""One store of each kind, and made recordings to put into it."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from service.collections.records import Collection, NewItem, Quota, Terms
from service.collections.store import Store, open_shared_store, open_store

DIMENSIONS = 16
TERMS = Terms("tiny", "space-of-tiny", DIMENSIONS, 5.0, 5.0)
QUOTA = Quota()
NOBODY = np.array([], np.int64)


def new_item(number: int, n_windows: int = 3, **members: Any) -> NewItem:
    """A recording whose vectors and content depend on its number alone."""
    rng = np.random.default_rng(number)
    start_s = 5.0 * np.arange(n_windows)
    vectors = rng.standard_normal((n_windows, DIMENSIONS)).astype(np.float32)
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    members = {"id": f"item-{number}"} | members
    return NewItem(digest, start_s, start_s + 5, vectors, 5.0 * n_windows, **members)


Reopen = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgres"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the store of the test; what was put in before is there again."""
    opened: list[Store] = []

    def open_again(**options: Any) -> Store:
        if request.param == "sqlite":
            opened.append(open_store(tmp_path / "data", **options))
        else:
            address = request.getfixturevalue("postgres")
            opened.append(open_shared_store(address, **options))
        return opened[-1]

    yield open_again
    if request.param == "postgres" and opened:
        with opened[-1].database.write() as connection:
            connection.execute(text("DELETE FROM collections"))
            connection.execute(text("DELETE FROM classifiers"))
            connection.execute(text("DELETE FROM jobs"))
            connection.execute(text("DELETE FROM uploads"))
            connection.execute(text("DELETE FROM procrastinate_jobs"))
    for store in opened:
        store.close()


@pytest.fixture
def store(reopen: Reopen) -> Store:
    return reopen()


@pytest.fixture
def collection(store: Store) -> Collection:
    return store.collections.put("ann", "birds", TERMS, QUOTA)[0]
