"""The recordings of a collection: added, listed, deleted, each with all that hangs on it."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Row, Select, delete, func, insert, select

from models.sources import normal
from service.collections.database import Database, some_to_delete
from service.collections.filters import EVERYTHING, Filter, matching, stored
from service.collections.records import (
    Added,
    Collection,
    Doubles,
    Floats,
    Item,
    ItemConflict,
    ItemNotFound,
    NewItem,
    Quota,
    QuotaExceeded,
    Size,
    handfuls,
)
from service.collections.register import Forget, changed, check_present, locked
from service.collections.schema import audio, items, metadata_values, windows

T = TypeVar("T")

ID_DIGITS = 32  # of the content's hash, where the client has no id of its own
PART_BYTES = 1 << 20  # of a file, in one row


class Items:
    """Items of the collections. What a method returns is on the disk, or gone from it.

    A collection may be deleted, or moved to another model, after somebody has found it. Each method
    then raises `CollectionNotFound`, rather than finding no items.
    """

    def __init__(self, database: Database, now: Callable[[], float], forget: Forget) -> None:
        self._database, self._now, self._forget = database, now, forget

    def add(self, collection: Collection, new: Sequence[NewItem], quota: Quota) -> list[Added]:
        """Add recordings in one transaction; returns what became of each, in order.

        Content that is there already is not added again; under another id it is refused. Other
        content under an id that is taken is refused too.

        Raises:
            CollectionNotFound: it has been deleted meanwhile.
            QuotaExceeded: there would be too many items or bytes; nothing is added.
        """
        with self._database.write() as connection:
            now = locked(connection, collection.key)
            known = _known(connection, collection, new)
            outcomes = [self._add(connection, now, item, known) for item in new]
            made = [added.item for added in outcomes if added.is_new and added.item]
            if made:
                n_windows, n_bytes = sum(i.n_windows for i in made), sum(i.n_bytes for i in made)
                check_quota(now, quota, len(made), n_bytes)
                changed(connection, now.key, len(made), n_windows, n_bytes)
        return outcomes

    def with_content(self, collection: Collection, digests: Sequence[str]) -> dict[str, Item]:
        """The items whose files have one of these SHA-256, by that digest."""
        with self._reading(collection) as connection:
            return _found(connection, collection, items.c.sha256, digests)

    def get(self, collection: Collection, id: str) -> Item:
        """The item of that id.

        Raises:
            ItemNotFound: there is none.
        """
        (item,) = self.named(collection, [id])
        return item

    def named(self, collection: Collection, ids: Sequence[str]) -> list[Item]:
        """The items of these ids, in their order.

        Raises:
            ItemNotFound: one of them is not there.
        """
        with self._reading(collection) as connection:
            found = _found(connection, collection, items.c.name, ids)
        for id in ids:
            if id not in found:
                raise ItemNotFound(f"The collection {collection.name!r} has no item {id!r}.")
        return [found[id] for id in ids]

    def by_key(self, collection: Collection, keys: Sequence[int]) -> dict[int, Item]:
        """The items of these keys that are there, by key."""
        with self._reading(collection) as connection:
            return _found(connection, collection, items.c.id, keys)

    def page(
        self,
        collection: Collection,
        after: int = 0,
        limit: int = 100,
        filter: Filter = EVERYTHING,
    ) -> list[Item]:
        """Items in the order in which they were added, those behind the key `after`."""
        query = _of(collection).where(items.c.id > after)
        if filter:
            query = query.where(items.c.id.in_(matching(collection, filter)))
        with self._reading(collection) as connection:
            rows = connection.execute(query.order_by(items.c.id).limit(limit)).all()
        return [item_of(row) for row in rows]

    def every(self, collection: Collection) -> Iterator[Item]:
        """All items, in the order in which they were added."""
        after = 0
        while some := self.page(collection, after, 1000):
            yield from some
            after = some[-1].key

    def keys(self, collection: Collection, filter: Filter) -> list[int]:
        """The keys of all items for which a filter holds, in ascending order."""
        query = matching(collection, filter).order_by(items.c.id)
        with self._reading(collection) as connection:
            return list(connection.execute(query).scalars())

    def size(self, collection: Collection, filter: Filter) -> Size:
        """How many items there are for which a filter holds, and how many windows of them."""
        counts = select(func.count(), func.coalesce(func.sum(items.c.n_windows), 0))
        query = counts.where(items.c.id.in_(matching(collection, filter)))
        with self._reading(collection) as connection:
            n_items, n_windows = connection.execute(query).one()
        return Size(n_items, int(n_windows))

    def audio(self, collection: Collection, item: Item) -> Iterator[bytes]:
        """The file of an item in parts; none where it was not kept.

        Raises:
            ItemNotFound: it has been deleted meanwhile, before it was read to its end.
        """
        query = select(audio.c.data).where(audio.c.item == item.key, audio.c.part >= 0)
        there = select(items.c.id).where(items.c.id == item.key)
        for part in range(-(-item.n_bytes // PART_BYTES)):
            with self._database.read() as connection:
                data = connection.execute(query.where(audio.c.part == part)).scalar_one_or_none()
                if data is None and connection.execute(there).first() is None:
                    sentence = f"The item {item.id!r} of {collection.name!r} has been deleted."
                    raise ItemNotFound(sentence)
            if data is None:
                return
            yield bytes(data)

    def delete(self, collection: Collection, id: str) -> None:
        """Delete one item with all that hangs on it.

        Raises:
            ItemNotFound: there is none.
        """
        if not self.delete_matching(collection, Filter(ids=[id])):
            raise ItemNotFound(f"The collection {collection.name!r} has no item {id!r}.")

    def delete_matching(self, collection: Collection, filter: Filter) -> int:
        """Delete all items for which the filter holds; how many there were."""
        n_deleted, n_last = 0, 1
        while n_last:
            with self._database.write() as connection:
                locked(connection, collection.key)
                n_last = self._delete_some(connection, collection, filter)
            n_deleted += n_last
            if n_last:
                self._forget(collection.key)
                self._database.empty_log()
        if n_deleted:
            self._database.give_back_space()
        return n_deleted

    @contextmanager
    def _reading(self, collection: Collection) -> Iterator[Connection]:
        """A connection that sees the collection, all of it.

        Raises:
            CollectionNotFound: it has been deleted, or moved to another model, meanwhile.
        """
        with self._database.read() as connection:
            check_present(connection, collection.key)
            yield connection

    def _delete_some(self, connection: Connection, collection: Collection, filter: Filter) -> int:
        found = items.c.id.in_(matching(collection, filter))
        keys = some_to_delete(connection, items, found)
        if not keys:
            return 0
        sums = select(func.sum(items.c.n_windows), func.sum(items.c.n_bytes))
        n_windows, n_bytes = connection.execute(sums.where(items.c.id.in_(keys))).one()
        connection.execute(delete(items).where(items.c.id.in_(keys)))
        changed(connection, collection.key, -len(keys), -int(n_windows), -int(n_bytes))
        return len(keys)

    def _add(
        self, connection: Connection, collection: Collection, new: NewItem, known: "_Known"
    ) -> Added:
        id = new.id or new.sha256[:ID_DIGITS]
        if there := known.by_content.get(new.sha256):
            return added_before(there, new.id)
        if id in known.by_id:
            sentence = f"The item {id!r} is here already, with other content."
            return Added(None, refusal=ItemConflict(sentence))
        item = self._insert(connection, collection, id, new)
        known.by_content[item.sha256] = known.by_id[item.id] = item
        return Added(item, is_new=True)

    def _insert(
        self, connection: Connection, collection: Collection, id: str, new: NewItem
    ) -> Item:
        written = json.dumps(dict(new.metadata), ensure_ascii=False)
        n_bytes = new.vectors.nbytes + len(new.audio or b"") + len(written.encode())
        row = {
            "collection": collection.key,
            "name": id,
            "sha256": new.sha256,
            "file": new.file,
            "duration_s": new.duration_s,
            "metadata": written,
            "n_windows": len(new.vectors),
            "n_bytes": n_bytes,
            "has_audio": new.audio is not None,
            "created_at": self._now(),
        }
        key = connection.execute(insert(items).values(row).returning(items.c.id)).scalar_one()
        times = new.start_s, new.end_s
        insert_windows(connection, collection.key, key, *times, new.vectors)
        _insert_metadata(connection, key, new)
        _insert_audio(connection, key, new.audio)
        return _item_of(key, row)


@dataclass(frozen=True)
class _Known:
    """Items of the collection that have the content or the id of one that is to be added."""

    by_content: dict[str, Item]
    by_id: dict[str, Item]


def _known(connection: Connection, collection: Collection, new: Sequence[NewItem]) -> _Known:
    digests = [item.sha256 for item in new]
    ids = [item.id or item.sha256[:ID_DIGITS] for item in new]
    return _Known(
        _found(connection, collection, items.c.sha256, digests),
        _found(connection, collection, items.c.name, ids),
    )


def _found(
    connection: Connection, collection: Collection, column: Column[T], values: Sequence[T]
) -> dict[T, Item]:
    """The items of a collection that have one of these values in a column, by that value."""
    found: dict[T, Item] = {}
    for some in handfuls(values):
        rows = connection.execute(_of(collection).where(column.in_(some)))
        found |= {getattr(row, column.name): item_of(row) for row in rows}
    return found


def insert_windows(
    connection: Connection,
    collection: int,
    item: int,
    start_s: Doubles,
    end_s: Doubles,
    vectors: Floats,
) -> None:
    """Write the windows (N, D) of an item."""
    times = zip(start_s.tolist(), end_s.tolist(), vectors, strict=True)
    rows = [
        {"collection": collection, "item": item, "start_s": start, "end_s": end, "vector": vector}
        for start, end, vector in times
    ]
    connection.execute(insert(windows), rows)


def _insert_metadata(connection: Connection, item: int, new: NewItem) -> None:
    rows = []
    for name, value in new.metadata.items():
        held = stored(value)
        text, number = (held, None) if isinstance(held, str) else (None, held)
        rows.append({"item": item, "name": normal(name), "text": text, "number": number})
    if rows:
        connection.execute(insert(metadata_values), rows)


def _insert_audio(connection: Connection, item: int, content: bytes | None) -> None:
    if content is not None:
        for part, first in enumerate(range(0, len(content), PART_BYTES)):
            row = {"item": item, "part": part, "data": content[first : first + PART_BYTES]}
            connection.execute(insert(audio).values(row))


def added_before(item: Item, id: str | None) -> Added:
    """What becomes of content that is there as `item`: it is refused under another id.

    `id` is what the client calls the content; None: it does not say.
    """
    if id in (None, item.id):
        return Added(item)
    sentence = f"This content is here already, as the item {item.id!r}."
    return Added(None, refusal=ItemConflict(sentence))


def check_quota(collection: Collection, quota: Quota, n_items: int, n_bytes: int = 0) -> None:
    """Check that there is room for so many more items and bytes.

    Raises:
        QuotaExceeded: there is none.
    """
    counts = (
        ("items", quota.items, collection.n_items + n_items),
        ("bytes", quota.n_bytes, collection.n_bytes + n_bytes),
    )
    for unit, limit, observed in counts:
        if observed > limit:
            raise QuotaExceeded(
                f"The collection {collection.name!r} would hold {observed} {unit}; at most {limit} "
                "are allowed: delete some, or use another collection.",
                limit=limit,
                observed=observed,
                unit=unit,
            )


def _of(collection: Collection) -> Select[Any]:
    return select(items).where(items.c.collection == collection.key)


def item_of(row: Row[Any]) -> Item:
    """The item of a row of the table."""
    return _item_of(row.id, row._asdict())


def _item_of(key: int, row: dict[str, Any]) -> Item:
    return Item(
        key,
        row["name"],
        row["sha256"],
        row["file"],
        row["duration_s"],
        json.loads(row["metadata"]),
        row["n_windows"],
        row["n_bytes"],
        row["has_audio"],
        row["created_at"],
    )
