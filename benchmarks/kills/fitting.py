"""Classifiers are learnt, each in a process of its own, kept as versions, and deleted."""

from contextlib import suppress

import numpy as np

from benchmarks.kills.said import DIMENSIONS, Said, say
from models.classifier import Classifier
from models.classifiers.table import Order, Table
from service.collections.classifiers import ClassifierNotFound, NewVersion, about
from service.collections.fitting import FitLimits, fit
from service.collections.store import Store

KEPT_BETWEEN = 5  # files that are kept after each that is learnt
N, LABELS = 60, ("a", "b")


def before(store: Store) -> None:
    for kept in store.classifiers.all(""):
        store.classifiers.delete("", kept.name)


def work(store: Store, first: int) -> None:
    number = first
    while True:
        say("adding", number)
        made = fit(
            _table(number), Order(f"c-{number}", "main", "made", "made-space"), FitLimits(60)
        )
        for again in range(KEPT_BETWEEN):
            say("adding", number)
            new = NewVersion("main", about(made, {}, ()), made.file)
            store.classifiers.add("", f"c-{number}", new, "me")
            say("added", number)
            if again % 2:
                say("deleting", number)
                store.classifiers.delete("", f"c-{number}")
                say("deleted", number)
            number += 1


def check(store: Store, said: Said) -> None:
    """Every classifier that was acknowledged is there, computes what it says, and nothing else."""
    kept = store.classifiers.all("")
    said.check({int(one.name.removeprefix("c-")) for one in kept})
    for one in kept:
        number, content = store.classifiers.download("", one.name, None)
        assert number == one.active == one.versions[0].number
        Classifier.of_bytes(content, one.name).self_test()
    for number in sorted(said.gone)[-3:]:
        with suppress(ClassifierNotFound):
            store.classifiers.get("", f"c-{number}")
            raise AssertionError(f"not deleted: {number}")


def _table(number: int) -> Table:
    rng = np.random.default_rng(number)
    which = np.arange(N) % len(LABELS)
    vectors = rng.standard_normal((N, DIMENSIONS)) + 2 * np.eye(len(LABELS), DIMENSIONS)[which]
    holds = np.eye(len(LABELS), dtype=bool)[which]
    return Table(
        LABELS,
        False,
        vectors.astype(np.float32),
        holds,
        np.ones_like(holds),
        np.arange(N, dtype=np.int64) // 2,
        np.full(N, 5.0),
    )
