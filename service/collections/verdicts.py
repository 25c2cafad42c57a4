"""Labels of recordings and stretches of them -> what is known of each window.

A label speaks of a window where they share half of the shorter of the two: a call of 0.3 s labels
the window of 1 s that holds it, and a stretch of 10 s those that lie in it. A window that shares
less is neither this nor that, and is left out. Letters: `N` windows, `K` labels.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.collections.records import Doubles, Integers, Label, Vectors

SHARE = 0.5  # of the shorter of window and stretch, from which a label speaks of a window
SLACK_S = 1e-6  # times that are equal but for rounding

NOTHING, POSITIVE, NEGATIVE, UNSURE, DISPUTED, PARTLY = range(6)
"""What is said of a window and a label; all but the first mean that somebody has heard it."""


@dataclass(frozen=True)
class Verdicts:
    """What is said of N windows and K labels, (N, K); `ids` names the items that carry labels."""

    labels: tuple[str, ...]
    said: NDArray[np.int8]
    ids: dict[int, str]

    @property
    def is_heard(self) -> NDArray[np.bool_]:
        """Whether anything at all is said of a window: (N,)."""
        heard: NDArray[np.bool_] = np.any(self.said != NOTHING, axis=1)
        return heard

    def are(self, what: int) -> NDArray[np.bool_]:
        """Where the verdict is `what`: (N, K)."""
        matching: NDArray[np.bool_] = self.said == what
        return matching


def verdicts_on(windows: Vectors, labels: Iterable[Label], names: Sequence[str]) -> Verdicts:
    """What people say of each window, about these labels.

    If one person says several things of a label, the last counts. Where people disagree, the
    verdict is `DISPUTED`.
    """
    column = {name: k for k, name in enumerate(names)}
    said = np.full((len(windows), len(names)), NOTHING, np.int8)
    rows = _rows_by_item(windows.items)
    by_item: dict[int, list[Label]] = defaultdict(list)
    for label in labels:
        if label.label in column and label.item in rows:
            by_item[label.item].append(label)
    for item, some in by_item.items():
        mine = rows[item]
        times = windows.start_s[mine], windows.end_s[mine]
        for name, about in _grouped(some).items():
            said[mine, column[name]] = _combined(about, *times)
    ids = {item: some[0].item_id for item, some in by_item.items()}
    return Verdicts(tuple(names), said, ids)


def _rows_by_item(items: Integers) -> dict[int, Integers]:
    """The windows of each item, in order."""
    order = np.argsort(items, kind="stable")
    keys, first = np.unique(items[order], return_index=True)
    return dict(zip(keys.tolist(), np.split(order, first)[1:], strict=True))


def _grouped(labels: Iterable[Label]) -> dict[str, list[Label]]:
    grouped: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        grouped[label.label].append(label)
    return grouped


def _combined(labels: Sequence[Label], start_s: Doubles, end_s: Doubles) -> NDArray[np.int8]:
    """What all persons together say about one label, of the windows of one item."""
    opinions: dict[str, NDArray[np.int8]] = {}
    touched = np.zeros(len(start_s), np.bool_)
    for label in sorted(labels, key=lambda label: (label.created_at, label.key)):
        mine = opinions.setdefault(label.by, np.full(len(start_s), NOTHING, np.int8))
        share = _share(label, start_s, end_s)
        mine[share >= SHARE - SLACK_S] = _CODES[label.verdict]
        touched |= share > SLACK_S
    every = np.stack(list(opinions.values()))
    yes, no, unsure = ((every == code).any(axis=0) for code in (POSITIVE, NEGATIVE, UNSURE))
    conditions = [yes & no, yes, no, unsure, touched]
    outcomes = [DISPUTED, POSITIVE, NEGATIVE, UNSURE, PARTLY]
    return np.select(conditions, outcomes, NOTHING).astype(np.int8)


_CODES = {"positive": POSITIVE, "negative": NEGATIVE, "unsure": UNSURE}


def _share(label: Label, start_s: Doubles, end_s: Doubles) -> Doubles:
    """How much of the shorter of label and window they share, for each window: (N,)."""
    if label.start_s is None or label.end_s is None:
        return np.ones(len(start_s))
    shared = np.minimum(end_s, label.end_s) - np.maximum(start_s, label.start_s)
    shorter = np.minimum(end_s - start_s, label.end_s - label.start_s)
    share: Doubles = np.maximum(shared, 0) / np.maximum(shorter, SLACK_S)
    return share
