"""Replicas that change the same rows of one PostgreSQL at the same moment."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select, text, update

from service.collections import schema
from service.collections.job_records import NewJob
from service.collections.records import Collection, CollectionNotFound, Terms
from service.collections.reembedding import Move
from service.collections.store import Store, open_shared_store
from tests.service.collections.conftest import QUOTA, TERMS, new_item
from tests.service.conftest import until

OTHER = Terms("other", "space-of-other", 24, 2.0, 2.0, keeps_audio=True)
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.fixture
def shared(postgres: str) -> Iterator[Store]:
    store = open_shared_store(postgres)
    yield store
    with store.database.write() as connection:
        for table in (schema.collections, schema.jobs, schema.uploads):
            connection.execute(delete(table))
    store.close()


@pytest.fixture
def kept(shared: Store) -> Collection:
    made, _ = shared.collections.put("ann", "birds", replace(TERMS, keeps_audio=True), QUOTA)
    shared.items.add(made, [new_item(0, audio=b"a"), new_item(1, audio=b"b")], QUOTA)
    return shared.collections.get("ann", "birds")


def wait_for_locks(store: Store, n_waiting: int) -> None:
    """Until so many transactions wait for a row that another one has."""

    def is_so() -> bool:
        with store.database.read() as connection:
            return bool(connection.execute(WAITING).scalar_one() == n_waiting)

    until(is_so)


def keep(store: Store, move: Move) -> None:
    for item in store.reembedding.left(move):
        vectors = np.ones((1, OTHER.dimensions), np.float32)
        store.reembedding.keep(move, item, np.zeros(1), np.ones(1), vectors)


def test_an_upload_that_a_job_takes_when_it_expires_is_the_jobs(shared: Store) -> None:
    upload = shared.uploads.create("ann", 3, "a.wav", most_bytes=9, kept_s=-60.0)
    shared.uploads.append("ann", upload.id, 0, b"abc")
    submitted = threading.Event()

    def put(*step: Any) -> None:
        submitted.set()
        wait_for_locks(shared, 1)  # in the job's transaction, which has the upload

    def expire() -> int:
        assert submitted.wait(20)
        return shared.uploads.expire()

    with ThreadPoolExecutor() as pool:
        expiring = pool.submit(expire)
        job, _ = shared.jobs.submit(NewJob("ann", "", "embed", {}, (upload.id,)), 9, put)
        assert expiring.result() == 0
    assert shared.uploads.of_job(job.key, 0) is not None


def test_two_jobs_that_name_the_same_uploads_in_other_orders_do_not_wait_for_each_other(
    shared: Store,
) -> None:
    made = (shared.uploads.create("ann", 0, None, most_bytes=9, kept_s=60.0) for _ in range(2))
    first, last = sorted(upload.id for upload in made)
    rows = select(schema.uploads.c.id).with_for_update()
    new = NewJob("ann", "", "embed", {}, (last, first))
    with ThreadPoolExecutor() as pool:
        with shared.database.write() as connection:  # as a job has them that names `first` first
            connection.execute(rows.where(schema.uploads.c.name == first))
            submitting = pool.submit(shared.jobs.submit, new, 9, lambda *step: None)
            wait_for_locks(shared, 1)
            connection.execute(rows.where(schema.uploads.c.name == last))
        job, _ = submitting.result()
    found = [shared.uploads.of_job(job.key, place) for place in range(2)]
    assert [upload.id for upload in found if upload is not None] == [last, first]


def test_new_vectors_of_an_item_that_is_being_deleted_are_left_out(
    shared: Store, kept: Collection
) -> None:
    move = shared.reembedding.begin(kept, OTHER, QUOTA)
    with ThreadPoolExecutor() as pool:
        with shared.database.write() as connection:
            connection.execute(delete(schema.items).where(schema.items.c.name == "item-0"))
            keeping = pool.submit(keep, shared, move)
            wait_for_locks(shared, 1)
        keeping.result()
    assert shared.reembedding.n_left(move) == 0


def test_a_move_that_is_begun_again_while_it_ends_waits_for_no_one_who_waits_for_it(
    shared: Store, kept: Collection
) -> None:
    move = shared.reembedding.begin(kept, OTHER, QUOTA)
    rows = select(schema.collections.c.id).with_for_update()
    with ThreadPoolExecutor() as pool:
        with shared.database.write() as connection:  # as `begin` has them: the old one, the new
            connection.execute(rows.where(schema.collections.c.id == kept.key))
            ending = pool.submit(shared.reembedding.finish, move)
            wait_for_locks(shared, 1)
            connection.execute(rows.where(schema.collections.c.replaces == kept.key))
        assert ending.result() is None  # items are left


def test_a_collection_that_is_deleted_when_its_move_ends_is_gone(
    shared: Store, kept: Collection
) -> None:
    move = shared.reembedding.begin(kept, OTHER, QUOTA)
    keep(shared, move)
    new = schema.collections.c.id == move.new.key
    with ThreadPoolExecutor() as pool:
        with shared.database.write() as connection:
            connection.execute(update(schema.collections).where(new).values(revision=1))
            ending = pool.submit(shared.reembedding.finish, move)
            wait_for_locks(shared, 1)
            deleting = pool.submit(shared.collections.delete, "ann", "birds")
            wait_for_locks(shared, 2)
        assert ending.result() is not None
        deleting.result()
    with pytest.raises(CollectionNotFound):
        shared.collections.get("ann", "birds")
