"""Moves a collection to another model: the old vectors answer until all new ones are there.

The new windows belong to a hidden collection of their own, and refer to the same items. Once every
item has new windows, one transaction hands the items and their labels over to the new collection;
the rest of the old one is deleted afterwards, at the next start if need be. If the process ends in
between, the old collection is whole, and the vectors computed so far are there when the move goes
on. Letters: `N` windows, `D` embedding dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Connection,
    ScalarSelect,
    Select,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from service.collections.database import Database
from service.collections.items import check_quota, insert_windows, item_of
from service.collections.records import (
    Collection,
    CollectionDiffers,
    CollectionNotFound,
    Doubles,
    Floats,
    Item,
    Quota,
    StoreError,
    Terms,
)
from service.collections.register import Register, collection_of, locked
from service.collections.schema import collections, items, labels, windows

NAMED = 20  # items that a refusal names
VALUE_BYTES = 4  # of a vector, as an item's bytes are counted


class AudioNotKept(StoreError):
    """Recordings that cannot be embedded again, since only their vectors are there."""

    kind = "audio-not-kept"


@dataclass(frozen=True)
class Move:
    """A collection, and what it will be.

    Attributes:
        old: the collection, which answers until the end.
        new: its terms are the new ones; it has the new windows.
    """

    old: Collection
    new: Collection


class Reembedding:
    """Moves collections to other models; each method is a transaction of its own."""

    def __init__(self, database: Database, register: Register) -> None:
        self._database, self._register = database, register

    def begin(self, collection: Collection, terms: Terms, quota: Quota) -> Move:
        """Begin to move a collection to these terms, or go on with it.

        Raises:
            AudioNotKept: some of its items have no audio; which.
            CollectionDiffers: it is on its way to other terms.
            CollectionNotFound: it has been deleted meanwhile.
            QuotaExceeded: the new vectors would be too large.
        """
        with self._database.write() as connection:
            old = locked(connection, collection.key)
            row = connection.execute(_replacing(old)).one_or_none()
            if row is not None:
                return Move(old, _same(old, collection_of(row), terms))
            _check_audio(connection, old)
            grown = VALUE_BYTES * old.n_windows * (terms.dimensions - old.terms.dimensions)
            check_quota(old, quota, 0, max(0, grown))
            values = vars(terms) | {
                "owner": old.owner,
                "name": old.name,
                "created_at": old.created_at,
                "replaces": old.key,
            }
            connection.execute(insert(collections).values(values))
            return Move(old, collection_of(connection.execute(_replacing(old)).one()))

    def left(self, move: Move, after: int = 0, limit: int = 100) -> list[Item]:
        """Items that have no new windows, those behind the key `after`."""
        query = _left(move).where(items.c.id > after).order_by(items.c.id).limit(limit)
        with self._database.read() as connection:
            return [item_of(row) for row in connection.execute(query)]

    def n_left(self, move: Move) -> int:
        """How many items have no new windows."""
        with self._database.read() as connection:
            return _count(connection, move)

    def keep(
        self, move: Move, item: Item, start_s: Doubles, end_s: Doubles, vectors: Floats
    ) -> None:
        """Store the new windows (N, D) of an item, unless it has been deleted.

        Raises:
            CollectionNotFound: the move has been finished, or given up, by somebody else.
        """
        with self._database.write() as connection:
            _check_goes_on(connection, move)
            mine = (items.c.id == item.key) & (items.c.collection == move.old.key)
            # Waits for whoever deletes it at this moment
            there = select(items.c.id).where(mine).with_for_update(read=True, key_share=True)
            if connection.execute(there).first() is None:
                return
            again = (windows.c.item == item.key) & (windows.c.collection == move.new.key)
            connection.execute(delete(windows).where(again))
            insert_windows(connection, move.new.key, item.key, start_s, end_s, vectors)

    def finish(self, move: Move) -> Collection | None:
        """Let the new vectors answer from now on; None if some items have none yet.

        Raises:
            CollectionNotFound: the move has been finished, or given up, by somebody else.
        """
        with self._database.write() as connection:
            old = locked(connection, move.old.key)  # first, as whoever begins a move does
            _check_goes_on(connection, move)
            if _count(connection, move):
                return None
            _hand_over(connection, replace(move, old=old))
            row = connection.execute(select(collections).where(_is(move.new))).one()
        self._register.empty(move.old.key)
        return collection_of(row)

    def give_up(self, collection: Collection) -> None:
        """Forget what has been computed for another model.

        Raises:
            CollectionNotFound: the collection is not on its way to one.
        """
        with self._database.write() as connection:
            row = connection.execute(_replacing(collection)).one_or_none()
            if row is None:
                raise CollectionNotFound(
                    f"The collection {collection.name!r} is not on its way to another model."
                )
            mark = update(collections).where(collections.c.id == row.id)
            connection.execute(mark.values(is_deleted=True, replaces=None))
        self._register.empty(row.id)


def _hand_over(connection: Connection, move: Move) -> None:
    """Give the items and labels of the old collection to the new one, and its name."""
    old, new = move.old.key, move.new.key
    n_new = _n_windows(new)
    bytes_each = VALUE_BYTES * move.new.terms.dimensions, VALUE_BYTES * move.old.terms.dimensions
    n_bytes = items.c.n_bytes + bytes_each[0] * n_new - bytes_each[1] * items.c.n_windows
    connection.execute(
        update(items)
        .where(items.c.collection == old)
        .values(collection=new, n_bytes=n_bytes, n_windows=n_new)
    )
    connection.execute(update(labels).where(labels.c.collection == old).values(collection=new))
    gone = update(collections).where(_is(move.old))
    connection.execute(gone.values(is_deleted=True))
    sums = select(
        func.count(),
        func.coalesce(func.sum(items.c.n_windows), 0),
        func.coalesce(func.sum(items.c.n_bytes), 0),
    ).where(items.c.collection == new)
    n_items, n_windows, n_all_bytes = connection.execute(sums).one()
    connection.execute(
        update(collections)
        .where(_is(move.new))
        .values(
            replaces=None,
            n_items=n_items,
            n_windows=int(n_windows),
            n_bytes=int(n_all_bytes),
            revision=move.old.revision + 1,
        )
    )


def _n_windows(collection: int) -> ScalarSelect[int]:
    """How many windows of a collection an item has, as a subquery."""
    mine = (windows.c.item == items.c.id) & (windows.c.collection == collection)
    return select(func.count()).where(mine).scalar_subquery()


def _left(move: Move) -> Select[Any]:
    has_new = exists().where(windows.c.item == items.c.id, windows.c.collection == move.new.key)
    return select(items).where(items.c.collection == move.old.key, ~has_new)


def _count(connection: Connection, move: Move) -> int:
    query = select(func.count()).select_from(_left(move).subquery())
    n_left: int = connection.execute(query).scalar_one()
    return n_left


def _is(collection: Collection) -> Any:
    return collections.c.id == collection.key


def _replacing(old: Collection) -> Select[Any]:
    return select(collections).where(collections.c.replaces == old.key).with_for_update()


def _check_goes_on(connection: Connection, move: Move) -> None:
    row = connection.execute(_replacing(move.old)).one_or_none()
    if row is None or row.id != move.new.key:
        raise CollectionNotFound(
            f"The collection {move.old.name!r} has been deleted, or its move to {_model(move.new)} "
            "has been finished or given up by somebody else."
        )


def _check_audio(connection: Connection, collection: Collection) -> None:
    silent = items.c.collection == collection.key, items.c.has_audio.is_(False)
    n_silent = connection.execute(select(func.count()).where(*silent)).scalar_one()
    if not n_silent:
        return
    query = select(items.c.name).where(*silent).order_by(items.c.id).limit(NAMED)
    raise audio_not_kept(collection, connection.execute(query).scalars().all(), n_silent)


def audio_not_kept(collection: Collection, names: Sequence[str], n_all: int) -> AudioNotKept:
    """The refusal of items, some of which it names."""
    more = f" and {n_all - len(names)} more" if n_all > len(names) else ""
    return AudioNotKept(
        f"The audio of {n_all} items of {collection.name!r} was not kept, so they cannot be "
        f"embedded again: {', '.join(names)}{more}. Delete them, or make a new collection of the "
        "files.",
        observed=n_all,
        unit="items",
    )


def _same(old: Collection, new: Collection, terms: Terms) -> Collection:
    if new.terms != terms:
        raise CollectionDiffers(
            f"The collection {old.name!r} is on its way to {_model(new)}: go on with that, or give "
            "it up first."
        )
    return new


def _model(collection: Collection) -> str:
    return f"{collection.terms.model}, space {collection.terms.space_id}"
