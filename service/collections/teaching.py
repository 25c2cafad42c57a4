"""Windows and their labels -> the table that a classifier learns from, with warnings in words.

A missing label is never taken for a no, unless that is asked for. Letters: `N` windows, `D`
embedding dim, `K` labels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.classifiers.table import Table
from models.labelled.labels import spelt_alike
from service.collections.leaks import Alike, alike, without_leaks
from service.collections.records import Integers, Label, Vectors
from service.collections.verdicts import (
    DISPUTED,
    NEGATIVE,
    NOTHING,
    PARTLY,
    POSITIVE,
    UNSURE,
    Verdicts,
    verdicts_on,
)
from service.exceptions import ServiceError

OTHER = "other"  # with task=multi-class: on request, the label of windows that nobody has labelled
MIN_WINDOWS = 5  # with a label and without it; with fewer there is nothing to hold out
FEW_WINDOWS, FEW_RECORDINGS = 20, 5  # below them the scores are worth little, which is said
MAX_WINDOWS = 20_000  # that are learnt from; more add little but time
WHOLE = "no recording being learnt from and tested on"
TORN = "parts of the same recordings being learnt from and tested on where a label has no other"
N_NAMED = 3  # examples in a sentence

Task = Literal["multi-class", "multi-label"]
Unlabelled = Literal["leave", "negative"]


class TeachingError(ServiceError):
    """Labels that nothing can be learnt from; the message says what is missing."""

    def __init__(self, message: str) -> None:
        super().__init__("nothing-to-learn", message)


@dataclass(frozen=True)
class Lesson:
    """What is to be learnt.

    Attributes:
        task: whether exactly one label holds for a window, or each by itself.
        labels: which; None: all that any window has.
        unlabelled: whether windows of which nothing is said count as a no.
        seed: of what is drawn.
    """

    task: Task = "multi-class"
    labels: tuple[str, ...] | None = None
    unlabelled: Unlabelled = "leave"
    seed: int = 0


@dataclass(frozen=True)
class Taught:
    """A table, the window that each of its rows is (N,), and warnings."""

    table: Table
    rows: Integers
    warnings: tuple[str, ...]
    protocol: str = WHOLE
    """How recordings are held out, in words."""


def table_of(
    windows: Vectors,
    labels: Sequence[Label],
    lesson: Lesson,
    name: str,
    names: Mapping[int, str] | None = None,
) -> Taught:
    """What the collection called `name` teaches; `names` are what people call its items, by key.

    Raises:
        TeachingError: nothing can be learnt from it.
    """
    verdicts = verdicts_on(windows, labels, names_to_learn(labels, lesson, name))
    warnings = [*_left_out(verdicts), *_about_names(verdicts.labels)]
    if lesson.task == "multi-class":
        rows, found, holds, known, more = _single(verdicts, lesson)
    else:
        rows, found, holds, known, more = _several(verdicts, lesson)
    rows, found, holds, known, more = _without_rare((rows, found, holds, known, more), lesson)
    _check(found, holds, known, lesson, name)
    if len(rows) > MAX_WINDOWS:
        kept = _thinned(holds, lesson.seed)
        more.append(
            f"{len(rows)} windows are labelled; {MAX_WINDOWS} of them, of all labels, are learnt "
            "from."
        )
        rows, holds, known = rows[kept], holds[kept], known[kept]
    chosen = windows.where(rows)
    twins = alike(chosen.vectors)
    groups, torn = without_leaks(chosen.items, twins, holds, known)
    more += _about_twins(twins, found, holds, chosen)
    more += _about_sources(found, holds, known, chosen, torn, verdicts.ids | dict(names or {}))
    table = Table(
        labels=found,
        multi_label=lesson.task == "multi-label",
        vectors=chosen.vectors,
        holds=holds,
        known=known,
        groups=groups,
        seconds=chosen.end_s - chosen.start_s,
    )
    return Taught(table, rows, (*warnings, *more), TORN if torn else WHOLE)


def names_to_learn(labels: Iterable[Label], lesson: Lesson, name: str) -> tuple[str, ...]:
    """The labels that are to be learnt.

    Raises:
        TeachingError: there is none, or one that was asked for is not there.
    """
    present = sorted({label.label for label in labels})
    if not present:
        raise TeachingError(
            f"The collection {name!r} has no labels; say first what some of its recordings are."
        )
    for wanted in lesson.labels or ():
        if wanted not in present:
            raise TeachingError(
                f"The collection {name!r} has no label {wanted!r}; it has {_some(present)}."
            )
    return tuple(sorted(set(lesson.labels))) if lesson.labels else tuple(present)


_Rows = tuple[Integers, tuple[str, ...], NDArray[np.bool_], NDArray[np.bool_], list[str]]


def _single(verdicts: Verdicts, lesson: Lesson) -> _Rows:
    """Windows of exactly one label; labels that no window has alone are left out."""
    yes = verdicts.are(POSITIVE)
    n_yes, warnings = yes.sum(axis=1), []
    if n_several := int((n_yes > 1).sum()):
        example = yes[np.argmax(n_yes > 1)]
        both = " and ".join(np.array(verdicts.labels)[example].tolist()[:2])
        warnings.append(
            f"{n_several} windows carry several labels, as {both}, and are left out: with "
            "task=multi-class exactly one holds. task=multi-label learns from them."
        )
    only_no = (n_yes == 0) & verdicts.are(NEGATIVE).any(axis=1)
    if n_no := int(only_no.sum()):
        warnings.append(
            f"Of {n_no} windows it is only said what they are not: they are left out. "
            "task=multi-label learns from them."
        )
    rows = np.flatnonzero(n_yes == 1)
    holds, labels = yes[rows], verdicts.labels
    if lesson.unlabelled == "negative":
        n_most = int(holds.sum(axis=0).max(initial=0))
        drawn = _drawn(verdicts, max(n_most, MIN_WINDOWS), lesson.seed)
        rows = np.concatenate([rows, drawn])
        if OTHER not in labels:
            labels = (*labels, OTHER)
            holds = np.hstack([holds, np.zeros((len(holds), 1), np.bool_)])
        others = np.tile(np.array(labels) == OTHER, (len(drawn), 1))
        holds = np.vstack([holds, others])
        warnings.append(
            f"{len(drawn)} windows of which nothing is said count as {OTHER!r}, as was asked: "
            "those among them that hold a label teach something wrong."
        )
    used = np.asarray(holds.any(axis=0))
    kept = tuple(label for label, is_used in zip(labels, used, strict=True) if is_used)
    return rows, kept, holds[:, used], np.ones((len(rows), len(kept)), np.bool_), warnings


def _several(verdicts: Verdicts, lesson: Lesson) -> _Rows:
    """Windows of which something is known, and what: a label has windows with and without it."""
    yes, no = verdicts.are(POSITIVE), verdicts.are(NEGATIVE)
    rows, warnings = np.flatnonzero((yes | no).any(axis=1)), []
    known = (yes | no)[rows]
    if lesson.unlabelled == "negative":
        n_silent = int((verdicts.said[rows] == NOTHING).sum())
        known |= verdicts.said[rows] == NOTHING
        drawn = _drawn(verdicts, max(len(rows), MIN_WINDOWS), lesson.seed)
        rows = np.concatenate([rows, drawn])
        known = np.vstack([known, np.ones((len(drawn), known.shape[1]), np.bool_)])
        warnings.append(
            f"{len(drawn)} windows of which nothing is said count as without any label, and "
            f"{n_silent} times a label that is not mentioned counts as a no, as was asked: where "
            "it holds all the same, that teaches something wrong."
        )
    return rows, verdicts.labels, yes[rows], known, warnings


def _without_rare(learnt: _Rows, lesson: Lesson) -> _Rows:
    """Without the labels that have too few windows, if none was asked for and enough are left.

    A collection has a few rare ones nearly always, and a slip of the pen is one more.
    """
    rows, labels, holds, known, warnings = learnt
    counts = holds.sum(axis=0)
    is_kept = counts >= MIN_WINDOWS
    least = 2 if lesson.task == "multi-class" else 1
    if lesson.labels is not None or is_kept.all() or is_kept.sum() < least:
        return learnt
    rare = [f"{label!r} {n}" for label, n in zip(labels, counts, strict=True) if n < MIN_WINDOWS]
    warnings.append(
        f"Left out for want of windows, of which a label needs {MIN_WINDOWS}: {_some(rare)}. Label "
        "more of them."
    )
    holds, known = holds[:, is_kept], known[:, is_kept]
    is_told = holds.any(axis=1) if lesson.task == "multi-class" else known.any(axis=1)
    kept = tuple(label for label, is_one in zip(labels, is_kept, strict=True) if is_one)
    return rows[is_told], kept, holds[is_told], known[is_told], warnings


def _drawn(verdicts: Verdicts, n_most: int, seed: int) -> Integers:
    """Rows of `n_most` windows that nobody has labelled, or of all of them."""
    silent = np.flatnonzero(~verdicts.is_heard)
    rng = np.random.default_rng(seed)
    return np.sort(rng.permutation(silent)[:n_most]).astype(np.int64)


def _check(
    labels: Sequence[str],
    holds: NDArray[np.bool_],
    known: NDArray[np.bool_],
    lesson: Lesson,
    name: str,
) -> None:
    """Refuse what nothing can be learnt from.

    Raises:
        TeachingError: what is missing, and what to do about it.
    """
    if lesson.task == "multi-class" and len(labels) < 2:
        what = f"only the label {labels[0]!r}" if labels else "no label"
        raise TeachingError(
            f"The windows of {name!r} carry {what}: a classifier tells two apart at least. Label "
            "something else too; or say of some windows that they are not, and choose "
            "task=multi-label; or count what is not labelled as something else: "
            "unlabelled=negative."
        )
    for k, label in enumerate(labels):
        n_yes, n_no = int(holds[:, k].sum()), int((known[:, k] & ~holds[:, k]).sum())
        if n_yes < MIN_WINDOWS:
            raise TeachingError(
                f"The label {label!r} has {n_yes} windows in {name!r}; at least {MIN_WINDOWS} are "
                "needed. Label more, or name the other labels in `labels`."
            )
        if n_no < MIN_WINDOWS:
            raise TeachingError(
                f"Of {n_no} windows in {name!r} it is known that they do not hold {label!r}; at "
                f"least {MIN_WINDOWS} are needed. Label some as negative, or count what is not "
                "labelled as a no: unlabelled=negative."
            )


def _thinned(holds: NDArray[np.bool_], seed: int) -> Integers:
    """`MAX_WINDOWS` rows in which all labels have their turns, the rarest first."""
    order = np.random.default_rng(seed).permutation(len(holds))
    turn = np.full(len(order), len(order))
    for column in holds[order].T:
        turn = np.where(column, np.minimum(turn, np.cumsum(column)), turn)
    return np.sort(order[np.argsort(turn, kind="stable")[:MAX_WINDOWS]])


def _left_out(verdicts: Verdicts) -> list[str]:
    """Sentences on labelled windows that cannot be learnt from."""
    counts = Counter(verdicts.said.ravel().tolist())
    sentences = []
    if n := counts[DISPUTED]:
        sentences.append(
            f"People disagree about {n} windows: what is disputed is left out. Delete the labels "
            "that are wrong."
        )
    if n := counts[UNSURE]:
        sentences.append(f"Labels of {n} windows are unsure and left out.")
    if n := counts[PARTLY]:
        sentences.append(
            f"{n} windows lie at the edge of a labelled stretch, less than half of it or of them, "
            "and are left out."
        )
    return sentences


def _about_names(labels: Sequence[str]) -> list[str]:
    """Labels that are written alike: most often one, to whoever wrote them."""
    alike = spelt_alike(labels)
    if not alike:
        return []
    return [
        f"Labels that differ in capitals, spaces or dashes alone are different labels: "
        f"{_some(alike)}. If they mean one sound, label it by one name."
    ]


def _about_twins(
    twins: Alike, labels: Sequence[str], holds: NDArray[np.bool_], windows: Vectors
) -> list[str]:
    """Windows that sound the same and are labelled otherwise, or lie in other recordings."""
    sentences = []
    differ = [(a, b) for a, b in twins.pairs if (holds[a] != holds[b]).any()]
    if differ:
        a, b = differ[0]
        names = [" and ".join(np.array(labels)[holds[row]].tolist()) or "none" for row in (a, b)]
        sentences.append(
            f"{len(differ)} times windows that sound the same carry different labels, as "
            f"{names[0]!r} and {names[1]!r}: one of them is wrong."
        )
    n_across = sum(windows.items[a] != windows.items[b] for a, b in twins.pairs)
    if n_across:
        sentences.append(
            f"{n_across} windows sound the same as one of another recording; such recordings are "
            "learnt from or tested on together."
        )
    return sentences


def _about_sources(
    labels: Sequence[str],
    holds: NDArray[np.bool_],
    known: NDArray[np.bool_],
    windows: Vectors,
    torn: Sequence[int],
    names: Mapping[int, str],
) -> list[str]:
    """Labels with few windows, or from few recordings, and recordings that lie on both sides."""
    sentences = []
    few: list[str] = []
    for k, label in enumerate(labels):
        n_windows = int(holds[:, k].sum())
        sources = np.unique(windows.items[holds[:, k]])
        if len(sources) == 1:
            named = names.get(int(sources[0]), "of which nothing is said")
            sentences.append(
                f"All {n_windows} windows of {label!r} come from one recording, {named}: the "
                "classifier may know that recording rather than the sound, and its scores are "
                "too good. Label others."
            )
        elif n_windows < FEW_WINDOWS or len(sources) < FEW_RECORDINGS:
            few.append(f"{label!r} {n_windows} of {len(sources)}")
    if few:
        sentences.append(
            f"Few windows of few recordings: {_some(few)} recordings. Below {FEW_WINDOWS} windows "
            f"of {FEW_RECORDINGS} recordings the scores are rough; more will make it better."
        )
    if torn:
        ids = [names.get(item, str(item)) for item in torn]
        sentences.append(
            f"Parts of the same recording are both learnt from and tested on: {_some(ids)}; there "
            "is no other for a label. Scores are better than they will be on new recordings."
        )
    return sentences


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more
