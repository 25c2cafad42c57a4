"""Kills, full disks, and many at once."""

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest

from benchmarks import collections_kill
from benchmarks.kills.said import Said
from service.collections.database import Database
from service.collections.records import (
    Collection,
    Quota,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
)
from service.collections.store import Store, open_shared_store, open_store
from tests.service.collections.conftest import NOBODY, QUOTA, TERMS, Reopen, new_item

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", ["adds and deletes", "index", "another model"])
def test_what_was_acknowledged_survives_kills(tmp_path: Path, kind: str) -> None:
    if kind == "index":
        pytest.importorskip("faiss")
    said, rng = Said(), random.Random(0)
    collections_kill.begin(kind, str(tmp_path))
    for number in range(2):
        collections_kill.kill_once(kind, str(tmp_path), said, 10_000 * number, 0.6 * rng.random())
    assert said.present | said.open


def test_two_write_and_eight_read_at_once(reopen: Reopen) -> None:
    writers = [reopen(), reopen()]
    collection, _ = writers[0].collections.put("ann", "birds", TERMS, QUOTA)
    writers[0].items.add(collection, [new_item(0)], QUOTA)
    failures: list[BaseException] = []
    is_over = threading.Event()
    n_items = 8

    def guarded(work: object, *args: object) -> None:
        try:
            work(*args)  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)
            is_over.set()

    def write(store: Store, first: int) -> None:
        for number in range(first, first + n_items):
            store.items.add(collection, [new_item(number)], QUOTA)
            if number % 3 == 2:
                store.items.delete(collection, f"item-{number}")

    def read(store: Store) -> None:
        query = new_item(0).vectors[1]
        while not is_over.is_set():
            now = store.collections.get("ann", "birds")
            near = store.index.nearest(now, query, 3, without=NOBODY)
            assert near.score[0] > 0.999
            assert len(store.windows.all(now)) % 3 == 0  # whole items alone

    readers = [threading.Thread(target=guarded, args=(read, writers[i % 2])) for i in range(8)]
    writing = [
        threading.Thread(target=guarded, args=(write, store, 100 * (i + 1)))
        for i, store in enumerate(writers)
    ]
    for thread in readers + writing:
        thread.start()
    for thread in writing:
        thread.join()
    is_over.set()
    for thread in readers:
        thread.join()
    assert not failures, failures[0]
    now = writers[1].collections.get("ann", "birds")
    assert now.n_items == 1 + 2 * n_items - sum(
        n % 3 == 2 for f in (100, 200) for n in range(f, f + n_items)
    )
    assert now.n_windows == len(writers[1].windows.all(now)) == 3 * now.n_items


def fill(folder: str) -> None:
    """What a child does whose files may not grow beyond some bytes."""
    store = open_store(Path(folder))
    collection, _ = store.collections.put("", "c", TERMS, Quota())
    size = sum(file.stat().st_size for file in Path(folder).iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + (1 << 20), resource.RLIM_INFINITY))
    n_added = 0
    try:
        while True:
            store.items.add(collection, [new_item(n_added, audio=b"x" * (1 << 18))], Quota())
            n_added += 1
    except StoreFull:
        sys.stdout.write(f"{n_added}\n")
    found = store.collections.get("", "c")
    assert found.n_items == n_added


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    program = f"from tests.service.collections.test_durability import fill; fill({str(tmp_path)!r})"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    n_added = int(ended.stdout)
    assert n_added >= 1
    store = open_store(tmp_path)
    collection = store.collections.get("", "c")
    assert collection.n_items == n_added == len(store.items.page(collection))
    store.items.add(collection, [new_item(1000)], QUOTA)
    assert len(store.windows.all(collection)) == 3 * (n_added + 1)
    store.close()


def test_what_a_statement_needs_beside_the_database_is_in_no_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.database.write() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE much (content)")
        for _ in range(16):  # more than is held in memory before it goes to a temporary file
            connection.exec_driver_sql("INSERT INTO much VALUES (zeroblob(1048576))")
        files = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.exists()]
        assert not [file for file in files if "etilqs" in file]
    store.close()


def test_who_waits_for_a_writer_for_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.collections.database.WAIT_S", 0.05)
    one, other = open_store(tmp_path), open_store(tmp_path)
    collection, _ = one.collections.put("", "c", TERMS, QUOTA)
    with one.database.write(), pytest.raises(StoreBusy):
        other.items.add(collection, [new_item(1)], QUOTA)
    other.items.add(collection, [new_item(1)], QUOTA)
    for store in (one, other):
        store.close()


def test_a_deletion_that_cannot_give_its_space_back_now_is_one_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.collections.database.WAIT_S", 0.05)
    store, other = open_store(tmp_path), open_store(tmp_path)
    collection, _ = store.collections.put("", "c", TERMS, QUOTA)
    store.items.add(collection, [new_item(1), new_item(2)], QUOTA)
    give_back = Database.give_back_space

    def while_others_write(self: Database) -> None:
        with other.database.write():
            give_back(self)

    monkeypatch.setattr(Database, "give_back_space", while_others_write)
    store.items.delete(collection, "item-1")
    store.collections.delete("", "c")
    assert store.collections.page("") == []
    for one in (store, other):
        one.close()


def read_only(store: Store, folder: Path) -> None:
    with store.database.read() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")


def damaged(store: Store, folder: Path) -> None:
    store.database.close()
    for file in folder.iterdir():
        content = bytearray(file.read_bytes())
        content[100 : len(content) // 2] = b"\xff" * (len(content) // 2 - 100)
        file.write_bytes(content)


def gone(store: Store, folder: Path) -> None:
    store.database.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("harm", [read_only, damaged, gone])
def test_a_database_that_fails_is_told_apart_from_a_wrong_request(
    tmp_path: Path, harm: Callable[[Store, Path], None]
) -> None:
    store = open_store(tmp_path / "data")
    collection, _ = store.collections.put("", "c", TERMS, QUOTA)
    harm(store, tmp_path / "data")
    with pytest.raises(StoreUnavailable) as caught:
        store.items.add(collection, [new_item(1)], QUOTA)
    assert caught.value.retry_after_s
    store.close()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_database_that_is_not_where_it_was_is_refused_until_it_is_back(
    tmp_path: Path, is_replaced: bool
) -> None:
    folder, aside = tmp_path / "data", tmp_path / "aside"
    store = open_store(folder)
    store.collections.put("", "c", TERMS, QUOTA)
    shutil.copytree(folder, tmp_path / "other")
    folder.rename(aside)
    if is_replaced:
        (tmp_path / "other").rename(folder)
    for use in (store.database.read, store.database.write):
        with pytest.raises(StoreUnavailable, match="is not where it was opened"), use() as one:
            one.exec_driver_sql("SELECT 1")
    if is_replaced:
        shutil.rmtree(folder)
    aside.rename(folder)
    assert len(store.collections.page("")) == 1
    store.close()


def test_a_server_that_is_gone_is_told_apart_without_its_address(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_shared_store(postgres)

    def refuse(*args: object, **options: object) -> None:
        raise psycopg.OperationalError("connection to server at 10.1.2.3 failed")

    store.database.close()
    monkeypatch.setattr(psycopg.Connection, "connect", refuse)
    with pytest.raises(StoreUnavailable) as caught:
        store.collections.page("ann")
    assert "10.1.2.3" not in str(caught.value)
    store.close()


def test_a_database_that_may_only_be_read_is_not_usable_until_it_may_be_written(
    postgres: str,
) -> None:
    store = open_shared_store(postgres)

    def set_to(how: str) -> None:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            name = connection.info.dbname
            connection.execute(f'ALTER DATABASE "{name}" {how}')  # type: ignore[arg-type]

    set_to("SET default_transaction_read_only = on")
    try:
        store.database.close()  # whoever connects now may only read
        assert store.collections.page("ann") == []
        with pytest.raises(StoreUnavailable):
            store.collections.put("ann", "birds", TERMS, QUOTA)
        with pytest.raises(StoreUnavailable):
            store.uploads.create("ann", 1, None, most_bytes=10, kept_s=60.0)
    finally:
        set_to("RESET default_transaction_read_only")
    store.collections.put("ann", "birds", TERMS, QUOTA)
    store.collections.delete("ann", "birds")
    store.close()


def test_more_threads_than_connections_are_busy_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.collections.database.CONNECTIONS", 1)
    store = open_store(tmp_path)
    monkeypatch.setattr(store.database._reading.pool, "_timeout", 0.05)
    with store.database.read(), store.database.read(), pytest.raises(StoreBusy):
        store.collections.page("")
    store.close()


def test_a_collection_that_is_deleted_meanwhile_keeps_no_other_from_expiring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    store = open_store(tmp_path, now=lambda: now[0])
    made = [store.collections.put("", name, TERMS, QUOTA)[0] for name in "ab"]
    for collection in made:
        store.items.add(collection, [new_item(1)], QUOTA)
    store.collections.delete("", "a")
    monkeypatch.setattr(store.collections, "all", lambda: made)
    now[0] = 2000.0
    assert store.expire(10.0) == 1
    assert store.collections.get("", "b").n_items == 0
    store.close()


def test_a_folder_of_a_later_version_is_refused(tmp_path: Path) -> None:
    from sqlalchemy import text

    from service.collections.records import StoreError

    store = open_store(tmp_path)
    with store.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreError, match="written by a later version of Viola .*9999"):
        open_store(tmp_path)


def test_vectors_are_the_same_after_another_process_has_changed_them(
    store: Store, collection: Collection, reopen: Reopen
) -> None:
    store.items.add(collection, [new_item(1), new_item(2)], QUOTA)
    now = store.collections.get("ann", "birds")
    store.index.nearest(now, new_item(1).vectors[0], 1, without=NOBODY)
    other = reopen()
    other.items.delete(collection, "item-1")
    other.items.add(collection, [new_item(3)], QUOTA)
    now = store.collections.get("ann", "birds")
    for number, is_there in ((1, False), (2, True), (3, True)):
        near = store.index.nearest(now, new_item(number).vectors[0], 1, without=NOBODY)
        assert (near.score[0] > 0.999) == is_there
    assert np.unique(store.windows.all(now).items).size == 2
