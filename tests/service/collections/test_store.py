"""What both stores promise: collections, items, labels, and how they go."""

import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text, update
from structlog.testing import capture_logs

from service.collections import schema
from service.collections.filters import Filter, Range
from service.collections.records import (
    Collection,
    CollectionDiffers,
    CollectionNotFound,
    ItemNotFound,
    NewLabel,
    Quota,
    QuotaExceeded,
)
from service.collections.store import Store
from tests.service.collections.conftest import QUOTA, TERMS, Reopen, new_item


def again(store: Store, collection: Collection) -> Collection:
    return store.collections.get(collection.owner, collection.name)


def ids(store: Store, collection: Collection, **conditions: Any) -> list[str]:
    return [item.id for item in store.items.page(collection, filter=Filter(**conditions))]


def test_the_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    with store.database.read() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, schema.metadata)
    # pgvector's graphs come with the first collection of their size; the queue has its own tables
    strange = ("vector", "procrastinate")
    assert not [
        d
        for d in differences
        if not (d[0].startswith("remove_") and any(word in d[-1].name for word in strange))
    ]


def test_putting_a_collection_twice_is_as_good_as_once(store: Store) -> None:
    made, is_new = store.collections.put("ann", "birds", TERMS, QUOTA)
    same, is_new_again = store.collections.put("ann", "birds", TERMS, QUOTA)
    assert (is_new, is_new_again) == (True, False)
    assert made == same
    with pytest.raises(CollectionDiffers, match="window_s = 5.0, not 3.0"):
        store.collections.put("ann", "birds", dataclasses.replace(TERMS, window_s=3.0), QUOTA)


def test_a_collection_is_its_owners_alone(store: Store, collection: Collection) -> None:
    with pytest.raises(CollectionNotFound):
        store.collections.get("ben", "birds")
    assert store.collections.page("ben") == []
    assert store.collections.put("ben", "birds", TERMS, QUOTA)[1]
    store.collections.delete("ben", "birds")
    assert again(store, collection) == collection


def test_an_owner_has_as_many_collections_as_are_allowed(store: Store) -> None:
    quota = Quota(collections=2)
    for name in ("a", "b"):
        store.collections.put("ann", name, TERMS, quota)
    with pytest.raises(QuotaExceeded, match="at most 2"):
        store.collections.put("ann", "c", TERMS, quota)
    store.collections.delete("ann", "a")
    store.collections.put("ann", "c", TERMS, quota)
    assert [c.name for c in store.collections.page("ann", after="b")] == ["c"]


def test_what_was_added_is_there_when_the_store_is_opened_again(
    reopen: Reopen, store: Store, collection: Collection
) -> None:
    new = new_item(1, metadata={"site": "A"}, file="a.wav", audio=b"x" * (3 << 20))
    (added,) = store.items.add(collection, [new], QUOTA)
    store.close()
    store = reopen()
    item = store.items.get(collection, "item-1")
    assert item == added.item
    assert (item.metadata, item.file, item.duration_s) == ({"site": "A"}, "a.wav", 15.0)
    assert b"".join(store.items.audio(collection, item)) == new.audio
    vectors = store.windows.all(collection)
    np.testing.assert_allclose(vectors.vectors, new.vectors, rtol=1e-3)
    np.testing.assert_array_equal(vectors.start_s, new.start_s)
    assert again(store, collection).n_windows == 3


def test_content_is_added_once_and_an_id_means_one_content(
    store: Store, collection: Collection
) -> None:
    new = new_item(1)
    other_id = dataclasses.replace(new, id="another")
    no_id = dataclasses.replace(new, id=None)
    taken = dataclasses.replace(new_item(2), id="item-1")
    outcomes = store.items.add(collection, [new, new, no_id, other_id, taken], QUOTA)
    assert [added.is_new for added in outcomes] == [True, False, False, False, False]
    assert outcomes[0].item == outcomes[1].item == outcomes[2].item
    assert "as the item 'item-1'" in str(outcomes[3].refusal)
    assert "with other content" in str(outcomes[4].refusal)
    outcomes = store.items.add(collection, [new, other_id], QUOTA)
    assert [(added.is_new, added.item is None) for added in outcomes] == [
        (False, False),
        (False, True),
    ]
    assert again(store, collection).n_items == 1
    assert len(store.windows.all(collection)) == 3
    assert store.items.with_content(collection, [new.sha256, "0" * 64]) == {
        new.sha256: store.items.get(collection, "item-1")
    }


def test_an_item_without_an_id_is_called_after_its_content(
    store: Store, collection: Collection
) -> None:
    new = new_item(1, id=None)
    (added,) = store.items.add(collection, [new], QUOTA)
    assert added.item
    assert added.item.id == new.sha256[:32]


@pytest.mark.parametrize("quota", [Quota(items=2), Quota(n_bytes=450)])
def test_more_than_is_allowed_is_refused_whole(
    store: Store, collection: Collection, quota: Quota
) -> None:
    store.items.add(collection, [new_item(1), new_item(2)], quota)
    before = again(store, collection)
    with pytest.raises(QuotaExceeded, match="would hold"):
        store.items.add(collection, [new_item(3)], quota)
    assert again(store, collection) == before
    assert len(store.windows.all(collection)) == 6


def test_pages_of_items_hold_each_once(store: Store, collection: Collection) -> None:
    store.items.add(collection, [new_item(i) for i in range(7)], QUOTA)
    seen, after = [], 0
    while page := store.items.page(collection, after, limit=3):
        seen += [item.id for item in page]
        after = page[-1].key
    assert seen == [f"item-{i}" for i in range(7)]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"ids": ["item-2", "item-9"]}, [2]),
        ({"ids": []}, []),
        ({"metadata": {"site": ["A"]}}, [0, 2, 4]),
        ({"metadata": {"site": ["A", "B"], "year": [2001, 2002.0]}}, [1, 2]),
        ({"metadata": {"year": Range(gt=2001, lte=2003)}}, [2, 3]),
        ({"metadata": {"day": Range(gte="2024-02", lt="2024-05")}}, [1, 2, 3]),
        ({"metadata": {"wet": [True]}}, [0, 1]),
        ({"metadata": {"year": ["2001"]}}, []),
        ({"metadata": {"none": ["A"]}}, []),
        ({"labels": ["owl"]}, [1]),
        ({"labels": ["owl", "fox"]}, [1, 3]),
        ({"without_labels": ["owl"]}, [0, 3, 4]),
        ({"metadata": {"site": ["B"]}, "without_labels": ["owl"]}, [3]),
        ({"created_to": 1.0}, []),
        ({"created_from": 1.0, "ids": ["item-0"]}, [0]),
    ],
)
def test_a_filter_holds_for_what_it_says(
    store: Store, collection: Collection, conditions: dict[str, Any], expected: list[int]
) -> None:
    for i in range(5):
        about = {"site": "AB"[i % 2], "year": 2000 + i, "day": f"2024-0{i + 1}", "wet": i < 2}
        store.items.add(collection, [new_item(i, metadata=about)], QUOTA)
    owls = [
        NewLabel("item-1", "owl"),
        NewLabel("item-2", "owl", "negative"),
        NewLabel("item-3", "fox"),
    ]
    store.labels.add(collection, owls, "ann")
    assert ids(store, collection, **conditions) == [f"item-{i}" for i in expected]


def test_metadata_comes_back_as_it_was_given(store: Store, collection: Collection) -> None:
    about = {"n": 1, "x": 1.0, "wet": True, "most": 2**53, "place": "Zu\u0308rich"}
    store.items.add(collection, [new_item(1, metadata=about)], QUOTA)
    (item,) = store.items.page(collection)
    assert {name: (type(v), v) for name, v in item.metadata.items()} == {
        name: (type(v), v) for name, v in about.items()
    }


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"place": ["Zu\u0308rich"]}, [0, 1]),
        ({"place": ["Z\u00fcrich"]}, [0, 1]),
        ({"\u00fc": ["B"]}, [2]),
        ({"u\u0308": ["B"]}, [2]),
        ({"u\u0308": Range(gte="B", lt="a")}, [2, 4]),
        ({"\u00fc": Range(gt="Z")}, [3, 5]),
        ({"n": [2**53]}, [6]),
        ({"n": Range(gte=2**53 - 1, lt=2**53)}, [7]),
    ],
)
def test_texts_are_compared_letter_by_letter_in_one_form(
    store: Store, collection: Collection, wanted: dict[str, Any], expected: list[int]
) -> None:
    """Small letters behind all large ones, whatever the language of a server."""
    about: list[dict[str, Any]] = [{"place": "Z\u00fcrich"}, {"place": "Zu\u0308rich"}]
    about += [{"\u00fc": "B"}, {"u\u0308": "a"}, {"u\u0308": "Z"}, {"u\u0308": "\u00e9"}]
    about += [{"n": 2**53}, {"n": 2**53 - 1}]
    new = [new_item(number, metadata=said) for number, said in enumerate(about)]
    store.items.add(collection, new, QUOTA)
    assert ids(store, collection, metadata=wanted) == [f"item-{i}" for i in expected]


def test_metadata_of_an_older_version_is_found_in_either_form(
    reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = import_module("service.collections.migrations.versions.0007_order_of_texts")
    monkeypatch.setattr(step, "ROWS", 2)
    store = reopen()
    collection, _ = store.collections.put("ann", "birds", TERMS, QUOTA)
    new = [new_item(i, metadata={"ort": "Zu\u0308rich", "u\u0308": i}) for i in range(3)]
    store.items.add(collection, [*new, new_item(9, metadata={"ort": "bern"})], QUOTA)
    values = schema.metadata_values
    with store.database.write() as connection:  # as they were written, and the order that there was
        as_it_came = {"name": "u\u0308"}
        connection.execute(update(values).where(values.c.name == "\u00fc").values(as_it_came))
        swiss = values.c.text == "Z\u00fcrich"
        connection.execute(update(values).where(swiss).values(text="Zu\u0308rich"))
        if connection.dialect.name == "postgresql":
            other = 'ALTER TABLE metadata_values ALTER COLUMN "text" TYPE text COLLATE "default"'
            connection.execute(text(other))
        connection.execute(text("ALTER TABLE classifier_versions DROP COLUMN digest"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
    assert ids(store, collection, metadata={"ort": ["Z\u00fcrich"]}) == []
    store = reopen()
    for place in ("Z\u00fcrich", "Zu\u0308rich"):
        assert ids(store, collection, metadata={"ort": [place]}) == ["item-0", "item-1", "item-2"]
    assert ids(store, collection, metadata={"\u00fc": [1]}) == ["item-1"]
    assert ids(store, collection, metadata={"ort": Range(gte="a")}) == ["item-9"]
    assert dict(store.items.get(collection, "item-1").metadata) == new[1].metadata
    with store.database.read() as connection:
        if connection.dialect.name == "postgresql":
            order = (
                "SELECT collation_name FROM information_schema.columns WHERE table_name = :table"
            )
            named = text(f"{order} AND column_name = 'text'")
            assert connection.execute(named, {"table": values.name}).scalar_one() == "C"


def test_a_label_says_what_where_and_who(reopen: Reopen) -> None:
    store = reopen(now=lambda: 77.0)
    collection, _ = store.collections.put("ann", "birds", TERMS, QUOTA)
    store.items.add(collection, [new_item(1), new_item(2)], QUOTA)
    made = store.labels.add(
        collection,
        [NewLabel("item-1", "owl"), NewLabel("item-2", "owl", "unsure", 1.5, 2.5)],
        "ben",
    )
    assert store.labels.page(collection) == made
    stretch = made[1]
    assert (stretch.item_id, stretch.verdict, stretch.start_s, stretch.end_s) == (
        "item-2",
        "unsure",
        1.5,
        2.5,
    )
    assert (stretch.by, stretch.created_at) == ("ben", 77.0)
    assert store.labels.page(collection, item_id="item-2") == [stretch]
    assert store.labels.page(collection, after=made[0].key, limit=5) == [stretch]
    assert store.labels.page(collection, label="fox") == []
    store.labels.delete(collection, made[0].key)
    assert store.labels.page(collection) == [stretch]
    with pytest.raises(ItemNotFound):
        store.labels.delete(collection, made[0].key)


def test_labels_are_added_all_or_none(store: Store, collection: Collection) -> None:
    store.items.add(collection, [new_item(1)], QUOTA)
    with pytest.raises(ItemNotFound, match="no item 'item-2'"):
        store.labels.add(collection, [NewLabel("item-1", "a"), NewLabel("item-2", "a")], "ann")
    assert store.labels.page(collection) == []


def rows_left(store: Store) -> dict[str, int]:
    with store.database.read() as connection:
        return {
            name: connection.execute(table.select()).rowcount
            if connection.dialect.name == "postgresql"
            else len(connection.execute(table.select()).all())
            for name, table in schema.metadata.tables.items()
        }


@pytest.mark.parametrize("way", ["item", "filter", "collection"])
def test_deleting_leaves_nothing(store: Store, collection: Collection, way: str) -> None:
    about = {"site": "A"}
    store.items.add(collection, [new_item(1, metadata=about, audio=b"abc")], QUOTA)
    store.labels.add(collection, [NewLabel("item-1", "owl")], "ann")
    delete: dict[str, Callable[[], object]] = {
        "item": lambda: store.items.delete(collection, "item-1"),
        "filter": lambda: store.items.delete_matching(collection, Filter(metadata={"site": ["A"]})),
        "collection": lambda: store.collections.delete("ann", "birds"),
    }
    delete[way]()
    left = rows_left(store)
    assert left.pop("collections") == (0 if way == "collection" else 1)
    assert set(left.values()) == {0}
    if way != "collection":
        now = again(store, collection)
        assert (now.n_items, now.n_windows, now.n_bytes) == (0, 0, 0)
        with pytest.raises(ItemNotFound, match="item-1"):
            store.items.delete(collection, "item-1")


def test_many_items_are_deleted_in_several_steps(
    store: Store, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.collections.database.BATCH", 20)
    store.items.add(collection, [new_item(i, 1) for i in range(45)], QUOTA)
    kept = Filter(created_from=0.0)
    assert store.items.delete_matching(collection, kept) == 45
    assert set(rows_left(store).values()) == {0, 1}


def test_a_deletion_that_was_cut_short_is_finished_at_the_next_start(
    reopen: Reopen, store: Store, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.items.add(collection, [new_item(1)], QUOTA)
    with monkeypatch.context() as patch:
        patch.setattr(type(store.collections), "empty", lambda self, key: None)
        store.collections.delete("ann", "birds")
    with pytest.raises(CollectionNotFound):
        store.collections.get("ann", "birds")
    assert store.collections.put("ann", "birds", TERMS, QUOTA)[0].n_items == 0
    left = rows_left(reopen())
    assert (left["collections"], left["items"], left["windows"]) == (1, 0, 0)


def test_what_is_older_than_it_may_be_goes(reopen: Reopen) -> None:
    time_s = 0.0
    store = reopen(now=lambda: time_s)
    collection, _ = store.collections.put("ann", "birds", TERMS, QUOTA)
    store.items.add(collection, [new_item(1)], QUOTA)
    time_s = 100.0
    store.items.add(collection, [new_item(2)], QUOTA)
    assert store.expire(kept_s=50.0) == 1
    assert ids(store, collection) == ["item-2"]


def test_the_log_tells_whose_collections_lost_what_was_too_old(reopen: Reopen) -> None:
    time_s = 0.0
    store = reopen(now=lambda: time_s)
    for owner, name, n in (("ann", "birds", 2), ("pond:", "frogs", 1), ("bob", "none", 0)):
        collection, _ = store.collections.put(owner, name, TERMS, QUOTA)
        store.items.add(collection, [new_item(i) for i in range(n)], QUOTA)
    time_s = 2 * 86_400.0
    with capture_logs() as logs:
        assert store.expire(kept_s=86_400.0) == 3
    told = [line for line in logs if line["event"] == "items expired"]
    assert [(line["owner"], line["collection"], line["items"]) for line in told] == [
        ("ann", "birds", 2),
        ("pond:", "frogs", 1),
    ]
    assert told[0]["kept_days"] == 1.0


def test_adding_to_a_collection_that_has_gone_is_refused(
    store: Store, collection: Collection
) -> None:
    store.collections.delete("ann", "birds")
    with pytest.raises(CollectionNotFound):
        store.items.add(collection, [new_item(1)], QUOTA)
    assert set(rows_left(store).values()) == {0}


def test_two_who_make_a_collection_at_the_same_moment_get_the_same_one(
    store: Store, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.database.read() as connection:
        if connection.dialect.name == "sqlite":
            pytest.skip("one writes at a time")
    other, check = reopen(), store.collections._check_quota

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(store.collections, "_check_quota", check)
        assert other.collections.put("ann", "both", TERMS, QUOTA)[1]

    monkeypatch.setattr(store.collections, "_check_quota", meanwhile)
    made, is_new = store.collections.put("ann", "both", TERMS, QUOTA)
    assert not is_new
    assert made == again(other, made)


def test_a_start_tells_of_the_tables_once_when_it_changes_them(
    reopen: Reopen, caplog: pytest.LogCaptureFixture
) -> None:
    reopen()
    caplog.clear()
    caplog.set_level("INFO")
    store = reopen()
    assert not caplog.messages
    with store.database.write() as connection:
        connection.execute(text("ALTER TABLE classifier_versions DROP COLUMN digest"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0007'"))
    reopen()
    assert caplog.messages == [
        "tables of the collections are changed, once nobody uses them any more",
        "tables of the collections brought up to date, from step 0007 to 0008",
    ]
