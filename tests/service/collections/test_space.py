"""What SQLite keeps of deleted rows on the disk, and who waits until it is gone."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.collections.database import Database
from service.collections.filters import Filter
from service.collections.records import Collection
from service.collections.store import Store, open_store
from tests.service.collections.conftest import QUOTA, TERMS, new_item

N_ITEMS = 8
AUDIO_BYTES = 300_000


def content(number: int) -> bytes:
    return b"a recording of %02d " % number * (AUDIO_BYTES // 18)


def filled(folder: Path) -> tuple[Store, Collection]:
    store = open_store(folder)
    collection, _ = store.collections.put("", "c", TERMS, QUOTA)
    for number in range(N_ITEMS):
        store.items.add(collection, [new_item(number, audio=content(number))], QUOTA)
    return store, collection


def kept(folder: Path) -> int:
    """How many bytes of deleted audio the files of a folder hold."""
    return sum(file.read_bytes().count(b"a recording of") for file in folder.iterdir())


def comes_true(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


@contextmanager
def still_read(store: Store, collection: Collection) -> Iterator[None]:
    """Somebody reads the state of now, for as long as the block takes."""
    with store.database.read() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM items").fetchall()
        yield


def test_the_disk_has_the_space_of_what_was_deleted(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    store.database.empty_log()
    file = tmp_path / "viola.sqlite"
    before = file.stat().st_size
    store.collections.delete("", "c")
    assert comes_true(lambda: file.stat().st_size <= before - N_ITEMS * AUDIO_BYTES)
    store.close()


def test_nobody_waits_for_readers_where_something_is_deleted(tmp_path: Path) -> None:
    store, collection = filled(tmp_path)
    with still_read(store, collection):
        started = time.monotonic()
        store.items.delete(collection, "item-0")
        store.items.add(collection, [new_item(100)], QUOTA)
        assert time.monotonic() - started < 5.0
    store.close()


def test_the_log_keeps_nothing_of_what_was_deleted_once_nobody_reads_it(tmp_path: Path) -> None:
    store, collection = filled(tmp_path)
    with still_read(store, collection):
        store.items.delete_matching(collection, Filter())
    assert comes_true(lambda: not kept(tmp_path))
    store.close()


def test_nothing_is_left_after_a_kill_right_behind_a_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, collection = filled(tmp_path / "data")

    def killed(self: Database) -> None:
        if not (tmp_path / "left").exists():
            shutil.copytree(tmp_path / "data", tmp_path / "left")

    with monkeypatch.context() as patched:
        for name in ("empty_log", "give_back_space"):
            patched.setattr(Database, name, killed)
        store.items.delete_matching(collection, Filter())
    store.close()
    assert kept(tmp_path / "left")
    again = open_store(tmp_path / "left")
    assert comes_true(lambda: not kept(tmp_path / "left"))
    assert again.collections.get("", "c").n_items == 0
    again.close()


def test_others_may_write_between_the_large_recordings_that_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.collections.database.BATCH_BYTES", 2 * AUDIO_BYTES)
    store, collection = filled(tmp_path)
    write, n_written = Database.write, []

    def counted(self: Database) -> Any:
        n_written.append(1)
        return write(self)

    monkeypatch.setattr(Database, "write", counted)
    assert store.items.delete_matching(collection, Filter()) == N_ITEMS
    assert len(n_written) > N_ITEMS // 3
    store.close()


def test_an_item_is_deleted_however_large_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.collections.database.BATCH_BYTES", 1)
    store, collection = filled(tmp_path)
    assert store.items.delete_matching(collection, Filter()) == N_ITEMS
    found = store.index.nearest(collection, np.ones(16, np.float32), 3, without=np.array([]))
    assert not len(found.items)
    store.close()
