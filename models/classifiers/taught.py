"""A table of windows and labels -> a classifier file in memory, and what it is worth in words.

Letters: `N` windows, `K` labels.
"""

from dataclasses import dataclass

import numpy as np
from rich.console import Console

from models import modelfile
from models.classifier import ClassifierCard
from models.classifiers import labelwise
from models.classifiers.card import Notes, Space
from models.classifiers.fit import MIN_CLIPS, Embedded, FitError, compose
from models.classifiers.rounds import by_group, check_rounds, task_of
from models.classifiers.table import Order, Table
from models.classifiers.tested import verdict


@dataclass(frozen=True)
class Taught:
    """A classifier: its file, its card, and what windows held out say of it in sentences."""

    file: bytes
    card: ClassifierCard
    sentences: tuple[str, ...]


def teach(table: Table, order: Order) -> Taught:
    """Learn from the windows, those of each group being tested by what the others taught.

    Raises:
        FitError: the table cannot be learnt from.
    """
    _check(table, order)
    space = Space(order.encoder, order.space_id, table.vectors.shape[1])
    notes = Notes(order.licence, order.description, protocol=order.protocol)
    if table.multi_label:
        proto, card, sentences = labelwise.compose(
            table, space, order.name, notes, order.task, order.seed
        )
    else:
        proto, made = compose(
            _single(table, order),
            space,
            order.name,
            notes=notes,
            seed=order.seed,
            console=Console(quiet=True),
        )
        card, sentences = made.card, verdict(made.tested)
    return Taught(modelfile.serialized(proto, card), card, tuple(sentences))


def _single(table: Table, order: Order) -> Embedded:
    """A table in which one label holds for each window."""
    rows = np.arange(len(table.vectors))
    rounds = by_group(table.holds, table.groups, order.seed)
    check_rounds(rounds, table.holds, table.labels, order.task)
    labels = table.holds.argmax(axis=1)
    task = task_of(order.task, table.labels, labels, table, rows, rounds)
    return Embedded(table.vectors, table.seconds, task)


def _check(table: Table, order: Order) -> None:
    """Refuse what nothing can be learnt from.

    Raises:
        FitError: what is missing, and what to do about it.
    """
    if not np.isfinite(table.vectors).all():
        raise FitError(f"{order.task} holds vectors that are not numbers; embed it again")
    if not table.labels or (not table.multi_label and len(table.labels) < 2):
        raise FitError(
            f"{order.task} has {len(table.labels)} labels with windows; a classifier tells two "
            "apart at least. Label something else too"
        )
    for k, name in enumerate(table.labels):
        holds, known = table.holds[:, k], table.known[:, k]
        counts = {"hold": int((holds & known).sum()), "do not hold": int((~holds & known).sum())}
        for what, count in counts.items():
            if count < MIN_CLIPS:
                raise FitError(
                    f"{order.task}: {count} windows {what} the label {name!r}, at least "
                    f"{MIN_CLIPS} are needed. Label more, or leave the label out"
                )
