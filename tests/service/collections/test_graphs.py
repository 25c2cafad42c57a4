"""The graphs of a real PostgreSQL, made beside searches once there is use for them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from structlog.testing import capture_logs

from service.collections import graphs
from service.collections.filters import Filter
from service.collections.pgvector import Pgvector
from service.collections.records import Collection, Nearest, StoreError
from service.collections.store import Store, open_shared_store
from tests.service.collections.conftest import NOBODY, QUOTA, TERMS, new_item
from tests.service.conftest import until

QUERY = np.random.default_rng(99).standard_normal(16).astype(np.float32)
GRAPH = "ix_windows_vector_16"


@pytest.fixture
def store(postgres: str) -> Iterator[Store]:
    store = open_shared_store(postgres)
    remove(store)
    yield store
    store.collections.delete("ann", "graph")
    remove(store)
    store.close()


@pytest.fixture
def full(store: Store) -> Collection:
    collection, _ = store.collections.put("ann", "graph", TERMS, QUOTA)
    new = [new_item(i, 1 + i % 4, metadata={"site": "AB"[i % 2]}) for i in range(60)]
    store.items.add(collection, new, QUOTA)
    return store.collections.get("ann", "graph")


@pytest.fixture
def index(store: Store) -> Iterator[Pgvector]:
    index = Pgvector(store.database, approximate_from=100)
    yield index
    index.close()


def remove(store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(text(f"DROP INDEX IF EXISTS {GRAPH}"))


def is_whole(store: Store) -> bool | None:
    """None: there is no graph."""
    query = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    with store.database.read() as connection:
        found: bool | None = connection.execute(query, {"name": GRAPH}).scalar()
    return found


def some(index: Pgvector, collection: Collection) -> Nearest:
    return index.nearest(collection, QUERY, 8, without=NOBODY, exact=False)


def test_the_graph_finds_what_the_exact_search_finds(index: Pgvector, full: Collection) -> None:
    assert index.prepare(full)
    for only in (Filter(), Filter(metadata={"site": ["B"]})):
        for by_item in (False, True):
            asked = {"filter": only, "without": NOBODY, "by_item": by_item}
            some = index.nearest(full, QUERY, 8, exact=False, **asked)  # type: ignore[arg-type]
            true = index.nearest(full, QUERY, 8, **asked)  # type: ignore[arg-type]
            assert (some.is_exact, true.is_exact) == (False, True)
            np.testing.assert_array_equal(some.windows, true.windows)
            np.testing.assert_allclose(some.score, true.score, atol=1e-6)


def test_it_is_made_beside_searches_which_are_exact_meanwhile(
    index: Pgvector, store: Store, full: Collection
) -> None:
    small = replace(full, n_windows=99)
    assert some(index, small).is_exact
    assert index.nearest(full, QUERY, 8, without=NOBODY).is_exact
    assert not index.prepare(small)
    assert is_whole(store) is None  # adding is faster without
    first = some(index, full)
    assert first.is_exact
    until(lambda: is_whole(store) is True)
    later = some(index, full)
    assert not later.is_exact
    np.testing.assert_array_equal(later.windows, first.windows)


def test_one_that_was_left_half_made_is_made_again(
    index: Pgvector, store: Store, full: Collection
) -> None:
    assert index.prepare(full)
    with store.database.write() as connection:
        half = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(:name)"
        connection.execute(text(half), {"name": GRAPH})
    again = Pgvector(store.database, approximate_from=100)
    assert some(again, full).is_exact
    until(lambda: is_whole(store) is True)
    again.close()


def test_one_process_makes_it_and_others_are_exact(
    index: Pgvector, store: Store, full: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with store.database.session() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": graphs._LOCK})
        assert not index.prepare(full)
        assert some(index, full).is_exact
        index.close()
        assert caplog.messages == []  # of a graph that another makes
    later = Pgvector(store.database, approximate_from=100)
    until(lambda: later.prepare(full))  # once the server has seen the end of the session


def test_a_store_that_is_closed_gives_up_the_graph_that_is_being_made(
    index: Pgvector, store: Store, full: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    with store.database.read() as connection:  # which the end of the making waits for
        connection.execute(text("SELECT count(*) FROM windows"))
        assert some(index, full).is_exact
        until(lambda: is_whole(store) is False)
        began = time.monotonic()
        with capture_logs() as told:
            index.close()
        assert time.monotonic() - began < graphs.CLOSE_S
        assert (told, caplog.messages) == ([], [])  # the database does not fail
        with pytest.raises(StoreError, match="closed"):
            index.prepare(full)
    other = Pgvector(store.database, approximate_from=100)
    assert other.prepare(full)


def test_a_graph_that_may_not_be_made_is_told_and_searches_stay_exact(
    index: Pgvector,
    full: Collection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise ProgrammingError("", {}, psycopg.errors.InsufficientPrivilege("must be owner"))

    monkeypatch.setattr(graphs, "_create", refuse)
    assert some(index, full).is_exact
    until(lambda: bool(caplog.messages))
    assert "no graph of vectors of 16 values: " in caplog.messages[0]
    assert some(index, full).is_exact


def test_where_workers_have_no_memory_to_share_one_makes_it(
    index: Pgvector, store: Store, full: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, refused = Connection.execute, []

    def with_little_memory(self: Connection, statement: Any, *args: Any) -> Any:
        if str(statement).startswith("CREATE INDEX"):
            workers = execute(self, text("SHOW max_parallel_maintenance_workers")).scalar_one()
            if workers != "0":
                refused.append(workers)
                raise OperationalError("", {}, psycopg.errors.DiskFull("of shared memory"))
        return execute(self, statement, *args)

    monkeypatch.setattr(Connection, "execute", with_little_memory)
    assert index.prepare(full)
    assert len(refused) == 1
