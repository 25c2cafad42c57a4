"""Labels: which sound an item, or a stretch of it, is or is not, and who says so.

A label belongs to a recording and its times, not to windows: it stays true whatever the windows of
a model (an idea of perch-hoplite's).
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select

from service.collections.database import Database
from service.collections.records import (
    Collection,
    ItemNotFound,
    Label,
    NewLabel,
    NotInRecording,
    QuotaExceeded,
    handfuls,
)
from service.collections.register import check_present, locked
from service.collections.schema import items, labels

MAX_LABELS = 1_000_000  # of one collection


class Labels:
    """Labels of the collections' items."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now

    def add(self, collection: Collection, new: Sequence[NewLabel], by: str) -> list[Label]:
        """Add labels, all or none of them; `by` is the author of those that name none.

        Raises:
            CollectionNotFound: it has been deleted meanwhile.
            ItemNotFound: an item is not there.
            NotInRecording: a stretch lies behind its end.
            QuotaExceeded: there would be more than `MAX_LABELS`.
        """
        now = self._now()
        with self._database.write() as connection:
            locked(connection, collection.key)
            _check_room(connection, collection, len(new))
            keys = _labelled_items(connection, collection, new)
            made = []
            for label in new:
                row: dict[str, Any] = {
                    "item": keys[label.item_id],
                    "label": label.label,
                    "verdict": label.verdict,
                    "start_s": label.start_s,
                    "end_s": label.end_s,
                    "by": label.by or by,
                    "created_at": now,
                }
                values = insert(labels).values(collection=collection.key, **row)
                key = connection.execute(values.returning(labels.c.id)).scalar_one()
                made.append(Label(key=key, item_id=label.item_id, **row))
        return made

    def page(
        self,
        collection: Collection,
        *,
        after: int = 0,
        limit: int | None = None,
        item_id: str | None = None,
        label: str | None = None,
    ) -> list[Label]:
        """Labels in the order in which they were added, those behind the key `after`.

        Raises:
            CollectionNotFound: it has been deleted, or moved to another model, meanwhile.
        """
        query = _of(collection).where(labels.c.id > after).order_by(labels.c.id).limit(limit)
        if item_id is not None:
            query = query.where(items.c.name == item_id)
        if label is not None:
            query = query.where(labels.c.label == label)
        with self._database.read() as connection:
            check_present(connection, collection.key)
            return [_label(row) for row in connection.execute(query)]

    def delete(self, collection: Collection, key: int) -> None:
        """Delete a label.

        Raises:
            CollectionNotFound: it has been deleted, or moved to another model, meanwhile.
            ItemNotFound: there is none of that number in the collection.
        """
        found = delete(labels).where(labels.c.collection == collection.key, labels.c.id == key)
        with self._database.write() as connection:
            locked(connection, collection.key)
            if not connection.execute(found).rowcount:
                raise ItemNotFound(f"The collection {collection.name!r} has no label {key}.")


def _check_room(connection: Connection, collection: Collection, n_new: int) -> None:
    query = select(func.count()).where(labels.c.collection == collection.key)
    n_labels = connection.execute(query).scalar_one() + n_new
    if n_labels > MAX_LABELS:
        raise QuotaExceeded(
            f"The collection {collection.name!r} would hold {n_labels} labels; at most "
            f"{MAX_LABELS} are allowed: delete some.",
            limit=MAX_LABELS,
            observed=n_labels,
            unit="labels",
        )


def _labelled_items(
    connection: Connection, collection: Collection, new: Sequence[NewLabel]
) -> dict[str, int]:
    """The keys of the items that are labelled, by their ids."""
    columns = select(items.c.name, items.c.id, items.c.duration_s)
    query = columns.where(items.c.collection == collection.key)
    found: dict[str, Any] = {}
    for some in handfuls(sorted({label.item_id for label in new})):
        found |= {row.name: row for row in connection.execute(query.where(items.c.name.in_(some)))}
    for label in new:
        item = found.get(label.item_id)
        if item is None:
            sentence = f"The collection {collection.name!r} has no item {label.item_id!r}."
            raise ItemNotFound(sentence)
        if label.start_s is not None and label.start_s >= item.duration_s:
            raise NotInRecording(
                f"The item {label.item_id!r} lasts {item.duration_s:g} s: nothing of it lies "
                f"between {label.start_s:g} and {label.end_s:g} s.",
                limit=item.duration_s,
                observed=label.start_s,
                unit="s",
            )
    return {name: row.id for name, row in found.items()}


def _of(collection: Collection) -> Select[Any]:
    query = select(labels, items.c.name).join(items, items.c.id == labels.c.item)
    return query.where(labels.c.collection == collection.key)


def _label(row: Row[Any]) -> Label:
    return Label(
        row.id,
        row.item,
        row.name,
        row.label,
        row.verdict,
        row.start_s,
        row.end_s,
        row.by,
        row.created_at,
    )
