"""Which collections there are, whose they are, and how much is in each."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from service.collections.database import Database
from service.collections.records import (
    Collection,
    CollectionDiffers,
    CollectionNotFound,
    Quota,
    QuotaExceeded,
    Terms,
)
from service.collections.schema import collections, items, windows

Forget = Callable[[int], None]
"""Called with the key of a collection that was deleted, or of which items were."""


class Register:
    """Collections by owner and name. What is not the owner's is as good as not there."""

    def __init__(self, database: Database, now: Callable[[], float], forget: Forget) -> None:
        self._database, self._now, self._forget = database, now, forget

    def put(self, owner: str, name: str, terms: Terms, quota: Quota) -> tuple[Collection, bool]:
        """The collection of that name, and whether it was made just now.

        Raises:
            CollectionDiffers: there is one of other terms.
            QuotaExceeded: the owner has as many as are allowed.
        """
        with suppress(IntegrityError):  # another has made it at the same moment
            return self._put(owner, name, terms, quota)
        return self._put(owner, name, terms, quota)

    def _put(self, owner: str, name: str, terms: Terms, quota: Quota) -> tuple[Collection, bool]:
        with self._database.write() as connection:
            row = connection.execute(_named(owner, name)).one_or_none()
            if row is not None:
                return _same(collection_of(row), terms), False
            self._check_quota(connection, owner, quota)
            connection.execute(insert(collections).values(self._row(owner, name, terms)))
            made = collection_of(connection.execute(_named(owner, name)).one())
        return made, True

    def get(self, owner: str, name: str) -> Collection:
        """The collection of that name.

        Raises:
            CollectionNotFound: the owner has none.
        """
        with self._database.read() as connection:
            row = connection.execute(_named(owner, name)).one_or_none()
        if row is None:
            raise CollectionNotFound(f"There is no collection {name!r}.")
        return collection_of(row)

    def check(self, collection: Collection) -> None:
        """Check that a collection is still there, with the same vectors.

        Raises:
            CollectionNotFound: it has been deleted, or moved to another model.
        """
        with self._database.read() as connection:
            check_present(connection, collection.key)

    def page(self, owner: str, after: str = "", limit: int = 100) -> list[Collection]:
        """The owner's collections by name, those behind the name `after`."""
        query = _present().where(collections.c.owner == owner, collections.c.name > after)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(collections.c.name).limit(limit)).all()
        return [collection_of(row) for row in rows]

    def all(self) -> list[Collection]:
        """Every collection of everybody."""
        with self._database.read() as connection:
            return [collection_of(row) for row in connection.execute(_present()).all()]

    def by_space(self) -> dict[tuple[str, str], int]:
        """How many collections there are of each model and space."""
        of = collections.c.model, collections.c.space_id
        query = _present().with_only_columns(*of, func.count()).group_by(*of)
        with self._database.read() as connection:
            return {(model, space): n for model, space, n in connection.execute(query)}

    def delete(self, owner: str, name: str) -> None:
        """Delete a collection with all that is in it, and what memory holds of it.

        From the first moment nobody sees it; if the process dies, the next start does the rest.

        Raises:
            CollectionNotFound: the owner has none.
        """
        with self._database.write() as connection:
            named = _named(owner, name).with_for_update()
            # A move that ends while it is waited for gives the name to another row: look again
            row = connection.execute(named).first() or connection.execute(named).first()
            if row is None:
                raise CollectionNotFound(f"There is no collection {name!r}.")
            marked = update(collections).where(collections.c.id == row.id)
            connection.execute(marked.values(is_deleted=True))
        self._forget(row.id)
        self.empty(row.id)

    def finish_deletions(self) -> int:
        """Delete what is left of collections whose deletion was cut short; how many there were.

        What other deletions have left in SQLite's file and log goes too.
        """
        query = select(collections.c.id).where(collections.c.is_deleted)
        with self._database.read() as connection:
            left = connection.execute(query).scalars().all()
        for key in left:
            self.empty(key)
        if not left:
            self._database.give_back_space()
        return len(left)

    def empty(self, key: int) -> None:
        """Delete what is left of a collection that counts as deleted."""
        self._database.delete_all(items, items.c.collection == key)
        # Old windows of items that another collection has taken over
        self._database.delete_all(windows, windows.c.collection == key)
        gone = or_(collections.c.id == key, collections.c.replaces == key)
        with self._database.write() as connection:
            connection.execute(delete(collections).where(gone))
        self._forget(key)
        self._database.give_back_space()

    def _check_quota(self, connection: Connection, owner: str, quota: Quota) -> None:
        query = select(func.count()).where(
            collections.c.owner == owner,
            collections.c.is_deleted.is_(False),
            collections.c.replaces.is_(None),
        )
        n_present = connection.execute(query).scalar_one()
        if n_present >= quota.collections:
            raise QuotaExceeded(
                f"There are {n_present} collections; at most {quota.collections} are allowed: "
                "delete one first, or use one that is there.",
                limit=quota.collections,
                observed=n_present + 1,
                unit="collections",
            )

    def _row(self, owner: str, name: str, terms: Terms) -> dict[str, Any]:
        return vars(terms) | {"owner": owner, "name": name, "created_at": self._now()}


def locked(connection: Connection, key: int) -> Collection:
    """A collection as it is now, which nobody else changes until the transaction has ended.

    Raises:
        CollectionNotFound: it has been deleted meanwhile.
    """
    query = _present().where(collections.c.id == key).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _gone()
    return collection_of(row)


def check_present(connection: Connection, key: int) -> None:
    """Check that this connection sees a collection, before it is taken to be empty.

    Raises:
        CollectionNotFound: it has been deleted, or moved to another model, meanwhile.
    """
    if connection.execute(_present().where(collections.c.id == key)).one_or_none() is None:
        raise _gone()


def changed(connection: Connection, key: int, n_items: int, n_windows: int, n_bytes: int) -> None:
    """Count what was added, or with negative numbers deleted, in the same transaction."""
    connection.execute(
        update(collections)
        .where(collections.c.id == key)
        .values(
            n_items=collections.c.n_items + n_items,
            n_windows=collections.c.n_windows + n_windows,
            n_bytes=collections.c.n_bytes + n_bytes,
            revision=collections.c.revision + 1,
        )
    )


def _gone() -> CollectionNotFound:
    return CollectionNotFound(
        "The collection has been deleted meanwhile, or has been moved to another model: ask again."
    )


def _present() -> Select[Any]:
    seen = collections.c.is_deleted.is_(False), collections.c.replaces.is_(None)
    return select(collections).where(*seen)


def _named(owner: str, name: str) -> Select[Any]:
    return _present().where(collections.c.owner == owner, collections.c.name == name)


def collection_of(row: Row[Any]) -> Collection:
    """The collection of a row of the table."""
    terms = Terms(**{name: getattr(row, name) for name in Terms.__dataclass_fields__})
    counts = ("created_at", "n_items", "n_windows", "n_bytes", "revision")
    return Collection(row.id, row.owner, row.name, terms, *(getattr(row, name) for name in counts))


def _same(collection: Collection, terms: Terms) -> Collection:
    if collection.terms.space_id != terms.space_id:
        raise CollectionDiffers(
            f"The {collection.of_space}, not {terms.space_id}: choose another name, or "
            f"{collection.way_to_another_space}."
        )
    for name, value in vars(terms).items():
        found = getattr(collection.terms, name)
        if found != value:
            raise CollectionDiffers(
                f"The collection {collection.name!r} is there with {name} = {found}, not {value}: "
                "choose another name, or delete it first."
            )
    return collection
