"""Which items: by id, by metadata, by label. A filter becomes a query for their keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, exists, or_, select

from models.sources import normal
from service.collections.records import Collection, Integers, Value
from service.collections.schema import items, labels, metadata_values, windows

Q = TypeVar("Q", bound=Select[Any])


@dataclass(frozen=True)
class Range:
    """Numbers, or texts in their order, from `gte` to `lte`, without the ends where `gt`, `lt`."""

    gt: Value | None = None
    gte: Value | None = None
    lt: Value | None = None
    lte: Value | None = None


@dataclass(frozen=True)
class Filter:
    """What holds of an item; everything that is said has to hold.

    Attributes:
        ids: it is one of these.
        metadata: a key has one of these values, or lies in that range.
        labels: it has one of these labels, with the verdict positive.
        without_labels: it has none of these labels, whatever the verdict.
        created_from: it was added at that time or later, in seconds since 1970.
        created_to: it was added before that time.
    """

    ids: Sequence[str] | None = None
    metadata: Mapping[str, Sequence[Value] | Range] = field(default_factory=dict)
    labels: Sequence[str] | None = None
    without_labels: Sequence[str] | None = None
    created_from: float | None = None
    created_to: float | None = None

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return self != EVERYTHING


EVERYTHING = Filter()


def matching(collection: Collection, filter: Filter = EVERYTHING) -> Select[Any]:
    """A query for the keys of the items of a collection for which the filter holds."""
    query = select(items.c.id).where(items.c.collection == collection.key)
    for condition in _conditions(filter):
        query = query.where(condition)
    return query


def windows_to_search(query: Q, collection: Collection, filter: Filter, without: Integers) -> Q:
    """A query for windows, limited to a collection and to the items that may be found.

    These are the items for which the filter holds, but not those of the keys `without`.
    """
    row = windows.c
    query = query.where(row.collection == collection.key)
    if filter:
        query = query.where(row.item.in_(matching(collection, filter)))
    if len(without):
        query = query.where(row.item.not_in(without.tolist()))
    return query


def _conditions(filter: Filter) -> list[ColumnElement[bool]]:
    found = [_has(name, wanted) for name, wanted in filter.metadata.items()]
    if filter.ids is not None:
        found.append(items.c.name.in_(filter.ids))
    if filter.labels is not None:
        found.append(_labelled(filter.labels, labels.c.verdict == "positive"))
    if filter.without_labels is not None:
        found.append(~_labelled(filter.without_labels))
    if filter.created_from is not None:
        found.append(items.c.created_at >= filter.created_from)
    if filter.created_to is not None:
        found.append(items.c.created_at < filter.created_to)
    return found


def _labelled(names: Sequence[str], *more: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(labels.c.item == items.c.id, labels.c.label.in_(names), *more)


def _has(name: str, wanted: Sequence[Value] | Range) -> ColumnElement[bool]:
    if isinstance(wanted, Range):
        conditions = [
            getattr(_column(bound), operator)(stored(bound))
            for operator, bound in _bounds(wanted)
            if bound is not None
        ]
    else:
        conditions = [or_(*(_column(value) == stored(value) for value in wanted))]
    row = metadata_values.c
    return exists().where(row.item == items.c.id, row.name == normal(name), *conditions)


def _bounds(wanted: Range) -> list[tuple[str, Value | None]]:
    return [
        ("__gt__", wanted.gt),
        ("__ge__", wanted.gte),
        ("__lt__", wanted.lt),
        ("__le__", wanted.lte),
    ]


def _column(value: Value) -> ColumnElement[Any]:
    row = metadata_values.c
    return row.text if isinstance(value, str) else row.number


def stored(value: Value) -> str | float:
    """A value as its column holds it: texts in one Unicode form, true as 1."""
    return normal(value) if isinstance(value, str) else float(value)
