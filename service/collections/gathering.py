"""Reads from the store what a classifier learns of a collection: labels and labelled windows.

Letters: `D` embedding dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.collections.records import Collection, Label, Vectors
from service.collections.store import Store
from service.collections.teaching import (
    Lesson,
    Taught,
    TeachingError,
    names_to_learn,
    table_of,
)
from service.collections.windows import joined

MAX_GATHERED = 200_000  # windows of labelled recordings
N_SILENT = 4_000  # windows that count as a no, where silence is one


@dataclass(frozen=True)
class Plan:
    """Labels of a collection, the items that carry them, and how many windows are to be read.

    `names` are what people call the items, by key: their file, else their id.
    """

    labels: tuple[Label, ...]
    names: Mapping[int, str]
    n_windows: int

    @property
    def keys(self) -> list[int]:
        """The keys of the items."""
        return sorted(self.names)

    def n_bytes(self, collection: Collection) -> int:
        """Bytes of the windows' vectors, as they are read and once more as they are joined."""
        return 2 * self.n_windows * collection.terms.dimensions * 4


def plan(store: Store, collection: Collection, lesson: Lesson) -> Plan:
    """What is to be read for a lesson.

    Raises:
        TeachingError: there is nothing, or not what was asked for, or too much.
    """
    present = store.labels.page(collection)
    wanted = set(names_to_learn(present, lesson, collection.name))
    labels = [label for label in present if label.label in wanted]
    keys = sorted({label.item for label in labels})
    items = store.items.by_key(collection, keys)
    n_windows = sum(item.n_windows for item in items.values())
    if n_windows > MAX_GATHERED:
        raise TeachingError(
            f"The labelled recordings of {collection.name!r} have {n_windows} windows; at most "
            f"{MAX_GATHERED} are read. Name fewer labels in `labels`, or cut long recordings."
        )
    silent = N_SILENT if lesson.unlabelled == "negative" else 0
    names = {key: item.file or item.id for key, item in items.items()}
    return Plan(tuple(labels), names, n_windows + min(silent, collection.n_windows))


def gather(store: Store, collection: Collection, plan: Plan, lesson: Lesson) -> Vectors:
    """The windows of the labelled items; and some others, where silence is a no.

    Raises:
        CollectionNotFound: it has been deleted, or moved to another model, meanwhile.
    """
    parts = [store.windows.of(collection, plan.keys)]
    if lesson.unlabelled == "negative":
        others = store.windows.sample(collection, N_SILENT)
        parts.append(others.where(~np.isin(others.items, plan.keys)))
    store.collections.check(collection)
    return joined(parts, collection.terms.dimensions)


def learn_from(store: Store, collection: Collection, lesson: Lesson) -> Taught:
    """What a collection teaches, all in one, for a command.

    Raises:
        TeachingError: nothing can be learnt from it.
    """
    planned = plan(store, collection, lesson)
    windows = gather(store, collection, planned, lesson)
    return table_of(windows, planned.labels, lesson, collection.name, planned.names)
