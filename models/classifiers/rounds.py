"""Rounds of cross-validation of a table of windows: no group lies on both sides.

Letters: `N` windows, `K` labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.classifiers.table import Table
from models.labelled import splits
from models.labelled.splits import Clues, Indices, Round
from models.labelled.tasks import Task, TaskError

ATTEMPTS = 20  # to deal groups so that each label lies in two parts
VALID_EVERY = 3  # windows of a label, where groups leave nothing to validate on


def by_group(holds: NDArray[np.bool_], groups: NDArray[np.int64], seed: int) -> tuple[Round, ...]:
    """Five rounds, or as many as there are groups, that learn from all labels: (N, K), (N,).

    Where every way that is tried leaves some round without a label, the first one is given.
    """
    tried: list[tuple[Round, ...]] = []
    for attempt in range(ATTEMPTS):
        clues = Clues(holds, groups.astype(np.str_), seed + attempt)
        tried.append(tuple(_validated(round_, clues) for round_ in splits.stratified(clues)))
        if all(holds[learnt(round_)].any(axis=0).all() for round_ in tried[-1]):
            return tried[-1]
    return tried[0]


def check_rounds(
    rounds: Sequence[Round], holds: NDArray[np.bool_], labels: Sequence[str], name: str
) -> None:
    """Refuse rounds that have nothing to learn some label from: (N, K).

    Raises:
        TaskError: naming the label.
    """
    for round_ in rounds:
        lacking = np.flatnonzero(~holds[learnt(round_)].any(axis=0))
        if len(rounds) < 2 or len(lacking):
            label = labels[int(lacking[0])] if len(lacking) else labels[0]
            raise TaskError(
                f"{name}: windows of the label {label!r} lie in too few recordings to be learnt "
                "from and tested on; label some in other recordings, or leave the label out"
            )


def learnt(round_: Round) -> Indices:
    """What a round learns from in the end."""
    return np.union1d(round_.train, round_.valid)


def _validated(round_: Round, clues: Clues) -> Round:
    """The round, where its training part still holds all labels; else with windows held out.

    With very few groups the validation part may be the only one that holds some label.
    """
    indices = learnt(round_)
    if (
        clues.labels[round_.train].any(axis=0).tolist()
        == clues.labels[indices].any(axis=0).tolist()
    ):
        return round_
    turn = _turns(clues.labels[indices])
    later = turn % VALID_EVERY == VALID_EVERY - 1
    return replace(round_, train=indices[~later], valid=indices[later])


def _turns(holds: NDArray[np.bool_]) -> Indices:
    """The number of each window within the first of its labels: (N, K) -> (N,)."""
    first = np.where(holds.any(axis=1), holds.argmax(axis=1), holds.shape[1])
    turns = np.zeros(len(first), np.int64)
    for label in np.unique(first):
        mine = first == label
        turns[mine] = np.arange(mine.sum())
    return turns


def task_of(
    name: str,
    labels: tuple[str, ...],
    values: NDArray[np.int64] | NDArray[np.bool_],
    table: Table,
    rows: Indices,
    rounds: tuple[Round, ...],
) -> Task:
    """Some windows of a table as a task whose vectors are known; it has no files."""
    groups = table.groups[rows].astype(np.str_)
    return Task(
        name=name,
        classes=labels,
        labels=values,
        rounds=rounds,
        groups=groups,
        seconds=float(np.median(table.seconds[rows])),
        files=(),
        digests=tuple(groups.tolist()),
    )
