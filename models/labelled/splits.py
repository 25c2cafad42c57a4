"""Which clips of a task train, validate and test: folds, groups, official splits, and what leaks.

Letters: `N` clips, `K` classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
N_PARTS = 5  # folds, where a task names none
VALID_SHARE = 10  # one clip in so many of the training part, where a task names no validation part
MOST_GROUPS = 20  # more groups than this are not left out one by one
PARTS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
"""The words for a part that a split column may hold."""


@dataclass(frozen=True)
class Round:
    """One training and one test of a probe: indices of clips, each sorted.

    `valid` stops the training; no clip of it is in `train` or `test`.
    """

    name: str
    train: Indices
    valid: Indices
    test: Indices

    def without(self, broken: Indices) -> "Round":
        """The round less some clips."""
        train, valid, test = (
            np.setdiff1d(part, broken) for part in (self.train, self.valid, self.test)
        )
        return Round(self.name, train, valid, test)


@dataclass(frozen=True)
class Clues:
    """What splits are made from, one row a clip.

    Attributes:
        labels: (N, K) bool.
        groups: (N,) clips of one group never lie on both sides, where we choose the sides.
        seed: decides where nothing else does.
    """

    labels: NDArray[np.bool_]
    groups: NDArray[np.str_]
    seed: int


def official(parts: Sequence[str], clues: Clues) -> list[Round]:
    """One round by a column of `PARTS`; a validation part that is missing is held out."""
    names = np.array([PARTS[part] for part in parts])
    train, valid, test = (np.flatnonzero(names == part) for part in ("train", "valid", "test"))
    if not len(valid):
        train, valid = held_out(train, clues)
    return [Round("split", train, valid, test)]


def in_turn(folds: NDArray[np.str_], clues: Clues) -> list[Round]:
    """Each fold is the test part once; of the others a tenth is held out to validate.

    A task with folds gives a test part alone, and early stopping needs clips that are in neither:
    those held out keep the shares of the classes and do not tear groups, so that with speakers as
    groups training stops by speakers that it has not heard.
    """
    rounds = []
    for fold in _sorted(folds):
        train, valid = held_out(np.flatnonzero(folds != fold), clues)
        rounds.append(Round(fold, train, valid, np.flatnonzero(folds == fold)))
    return rounds


def by_group(clues: Clues) -> list[Round]:
    """Each group is the test part once; where there are many, they are dealt into folds first."""
    if len(np.unique(clues.groups)) <= MOST_GROUPS:
        return in_turn(clues.groups, clues)
    return stratified(clues)


def stratified(clues: Clues) -> list[Round]:
    """Folds of like shares of the classes; a group lies in one of them as a whole."""
    dealt = deal(np.arange(len(clues.labels)), clues, N_PARTS)
    return in_turn((dealt + 1).astype(np.str_), clues)


def held_out(indices: Indices, clues: Clues) -> tuple[Indices, Indices]:
    """Split off a tenth to validate; with a single group, or single-clip classes, what can be."""
    if not len(indices):  # a task of a single fold or group
        return indices, indices
    if len(np.unique(clues.groups[indices])) < 2:
        clues = replace(clues, groups=np.arange(len(clues.groups)).astype(np.str_))
    last = VALID_SHARE - 1
    dealt = deal(indices, clues, VALID_SHARE)
    if not (dealt == last).any():  # fewer groups than parts: the last one that has clips
        last = int(dealt.max())
    return indices[dealt != last], indices[dealt == last]


def deal(indices: Indices, clues: Clues, n_parts: int) -> NDArray[np.int64]:
    """The part of each of `indices`: groups, large ones first, go where their classes are rarest.

    Works for several labels a clip as well. Of equally good parts the first is taken, so that the
    last one goes without, where a class has too few clips for all.
    """
    labels = clues.labels[indices].astype(np.int64)
    _, group_of = np.unique(clues.groups[indices], return_inverse=True)
    sizes = np.bincount(group_of)
    shuffled = np.random.default_rng(clues.seed).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    of_group = np.zeros((len(sizes), labels.shape[1]), np.int64)
    np.add.at(of_group, group_of, labels)
    counts = np.zeros((n_parts, labels.shape[1]), np.int64)
    totals = np.zeros(n_parts, np.int64)
    part_of = np.empty(len(sizes), np.int64)
    for group in order:
        alike = counts @ of_group[group]
        best = int(np.lexsort((totals, alike))[0])
        part_of[group] = best
        counts[best] += of_group[group]
        totals[best] += sizes[group]
    dealt: NDArray[np.int64] = part_of[group_of]
    return dealt


def leaks(rounds: Sequence[Round], marks: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Pairs of clips, one to train and one to test, that carry the same mark, in words."""
    for round_ in rounds:
        seen = {marks[index]: index for index in reversed(round_.train)}
        for index in round_.test:
            if marks[index] in seen:
                trains = names[seen[marks[index]]]
                yield f"{trains} trains and {names[index]} tests in round {round_.name}"


def _sorted(folds: NDArray[np.str_]) -> list[str]:
    """Names of folds, as numbers where they are numbers."""
    names = np.unique(folds).tolist()
    numeric = all(name.isdecimal() for name in names)
    return sorted(names, key=int) if numeric else names
