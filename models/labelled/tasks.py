"""Downstream tasks: labelled clips, and who of them trains, validates and tests.

Letters: `N` clips, `K` classes.
"""

import logging
import math
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE
from models.labelled import clips, labels, splits
from models.labelled.clips import Floats
from models.labelled.labels import LabelError, Row, some
from models.labelled.splits import Clues, Round
from models.sources import Item, SourceError

MIN_SECONDS, MAX_SECONDS = 0.05, 3600.0  # unit length; it is held in memory
log = logging.getLogger(__name__)


class TaskError(ValueError):
    """A task that cannot be used."""


@dataclass(frozen=True)
class Task:
    """Labelled clips, and the rounds in which a probe learns from some and is tested on others.

    Attributes:
        name: of the table without its suffix, or of the folder.
        classes: the K labels, sorted.
        labels: (N,) int, or (N, K) bool where a clip may have several.
        rounds: of training and testing, one a fold.
        groups: (N,) what must not lie on both sides, or None where the table does not say.
        seconds: unit length; an embedding is that of a clip cut or padded to it.
        files: where the clips are; none where they are windows whose vectors are known.
        digests: hash of each file's content.
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    rounds: tuple[Round, ...]
    groups: NDArray[np.str_] | None
    seconds: float
    files: tuple[Item, ...]
    digests: tuple[str, ...]

    @property
    def is_multilabel(self) -> bool:
        """Whether a clip may have several labels, or none."""
        return self.labels.ndim == 2

    @property
    def one_hot(self) -> NDArray[np.bool_]:
        """Which classes each clip has: (N, K)."""
        if self.labels.ndim == 2:
            return self.labels.astype(np.bool_)
        table: NDArray[np.bool_] = np.arange(len(self.classes)) == self.labels[:, None]
        return table

    @property
    def metric(self) -> str:
        """What a probe of this task is measured by."""
        return "mAP" if self.is_multilabel else "accuracy"

    @property
    def unit(self) -> str:
        """What the labels are of, in messages: "clip", or "window" where there are no files."""
        return "clip" if self.files else "window"

    @property
    def n_clips(self) -> int:
        """Labelled clips."""
        return len(self.files)

    @property
    def n_samples(self) -> int:
        """Samples of the unit length at 16 kHz."""
        return round(self.seconds * SAMPLE_RATE)

    def decode(self, broken: dict[int, str] | None = None) -> Iterator[tuple[int, Floats]]:
        """Index and samples of each clip, of its own length, mono at 16 kHz, in order.

        Args:
            broken: takes the files that cannot be decoded, and why; None: they are an error.

        Raises:
            TaskError: a file cannot be decoded, and `broken` is None.
        """
        for index, samples in clips.decode(self.files):
            if not isinstance(samples, str):
                yield index, samples
            elif broken is None:
                self.reject(index, samples)
            else:
                broken[index] = samples

    def reject(self, index: int, reason: str) -> NoReturn:
        """Name the file that cannot be decoded.

        Raises:
            TaskError: always.
        """
        raise TaskError(
            f"{self.name}: {self.files[index].name} cannot be decoded: {reason}. --skip-broken "
            "leaves such files out"
        )

    def units(self) -> Floats:
        """All clips at the unit length: (N, S), in memory; for tasks that fit there.

        Raises:
            TaskError: a file cannot be decoded.
        """
        units = np.zeros((self.n_clips, self.n_samples), np.float32)
        for index, samples in self.decode():
            units[index] = clips.fit(samples, self.n_samples)
        return units

    def without(self, broken: Sequence[int]) -> "Task":
        """The task whose rounds use none of these clips; indices stay as they are.

        Raises:
            TaskError: nothing is left to train with or to test on.
        """
        gone = np.array(sorted(broken), np.int64)
        rounds = tuple(round_.without(gone) for round_ in self.rounds)
        _check_parts(self.name, rounds, "more clips are needed")
        return replace(self, rounds=rounds)


def load(
    path: Path,
    seconds: float | None = None,
    *,
    root: Path | None = None,
    separator: str | None = None,
    seed: int = 42,
    allow_leakage: bool = False,
) -> Task:
    """A CSV `file_name,label[,split|fold][,group]`, or a folder of class folders.

    The tables of the EVAR package are such CSVs. Rounds follow, in this order, from: a column
    `split` (train, valid, test), a column `fold`, a column `group` (each left out in turn), or five
    stratified folds; groups, and files of equal content, are never torn by what is chosen here.

    Args:
        path: the table, or the folder.
        seconds: unit length; the clips' mean length if not given, as in BYOL-A (arXiv 2103.06695).
        root: the folder that file names start from, if not the table's own. A first folder that is
            missing there may be a tar of that name.
        separator: joins the labels of one clip; "": each is a whole label; None: a comma, semicolon
            or bar without a space behind it, if any label holds one.
        seed: of the splits that are chosen here.
        allow_leakage: warn of clips on both sides instead of refusing.

    Raises:
        TaskError: what the table or the folder lacks, or a leak between training and test.
    """
    if not path.exists():
        raise TaskError(
            f"no task at {path}: there is no such file or folder; give a CSV of file_name,label, "
            "or a folder of class folders"
        )
    try:
        rows = labels.of_folder(path) if path.is_dir() else labels.of_table(path)
    except LabelError as error:
        raise TaskError(str(error)) from error
    if path.is_dir():
        root = path
    name = path.resolve().name.removesuffix(".csv")
    return assemble(
        name,
        rows,
        root or path.parent,
        seconds,
        separator=separator,
        seed=seed,
        allow_leakage=allow_leakage,
    )


def assemble(
    name: str,
    rows: Sequence[Row],
    root: Path,
    seconds: float | None = None,
    *,
    separator: str | None = None,
    seed: int = 42,
    allow_leakage: bool = False,
) -> Task:
    """A task of these rows, whose files lie below `root`; see `load`.

    Raises:
        TaskError: as `load`.
    """
    if seconds is not None and not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise TaskError(
            f"{name}: a unit length of {seconds:g} s; expected {MIN_SECONDS:g} to {MAX_SECONDS:g} s"
        )
    try:
        classes, one_hot = labels.one_hot(rows, separator)
    except LabelError as error:
        raise TaskError(f"{name}: {error}") from error
    for alike in labels.spelt_alike(classes):
        log.warning(
            "%s: %s are different classes; if they mean one sound, write them alike", name, alike
        )
    files = _files(name, rows, root)
    digests, lengths = clips.survey(files)
    if contrary := _contrary(files, digests, one_hot):
        log.warning(
            "%s: the same sound has different labels: %s; leave one out, or put one of them into a "
            "table with both labels, joined by a comma",
            name,
            some(contrary),
        )
    if seconds is None:
        known = [length for length in lengths if length] or [1.0]
        seconds = max(MIN_SECONDS, round(math.fsum(known) / len(known), 2))
    groups = _groups(rows)
    clues = Clues(one_hot, np.array(digests) if groups is None else groups, seed)
    rounds = _rounds(name, rows, clues, groups is not None)
    _check_parts(name, rounds, _remedy(rows))
    names = [row.file_name for row in rows]
    _check_leaks(name, rounds, names, digests, groups, allow_leakage)
    several = labels.are_joined(rows, separator)
    return Task(
        name=name,
        classes=classes,
        labels=one_hot if several else one_hot.argmax(1),
        rounds=rounds,
        groups=groups,
        seconds=seconds,
        files=files,
        digests=tuple(digests),
    )


def _files(name: str, rows: Sequence[Row], root: Path) -> tuple[Item, ...]:
    names = [row.file_name for row in rows]
    counts = Counter(posixpath.normpath(n) for n in names)  # "./a.wav" is a.wav
    twice = [n for n, count in counts.items() if count > 1]
    if twice:
        raise TaskError(f"{name}: files that are listed twice: {some(twice)}")
    try:
        found = clips.locate(root, names)
    except SourceError as error:
        raise TaskError(f"{name}: {error}") from error
    missing = [n for n, item in zip(names, found, strict=True) if item is None]
    if missing:
        raise TaskError(
            f"{name}: {len(missing)} of {len(names)} files are not below {root}: {some(missing)}; "
            "--root names the folder that file names start from"
        )
    return tuple(item for item in found if item is not None)


def _contrary(
    files: Sequence[Item], digests: Sequence[str], one_hot: NDArray[np.bool_]
) -> list[str]:
    """Files of equal content whose labels differ, in words: "a/1.wav is b/1.wav"."""
    first: dict[str, int] = {}
    return [
        f"{files[index].name} is {files[same].name}"
        for index, digest in enumerate(digests)
        if (one_hot[index] != one_hot[same := first.setdefault(digest, index)]).any()
    ]


def _groups(rows: Sequence[Row]) -> NDArray[np.str_] | None:
    """Groups of a table that has any; a clip without one stands alone."""
    if not any(row.group for row in rows):
        return None
    return np.array([row.group or f"{row.file_name} alone" for row in rows])


def _rounds(name: str, rows: Sequence[Row], clues: Clues, grouped: bool) -> tuple[Round, ...]:
    if any(row.split for row in rows):
        parts = [row.split.lower() for row in rows]
        unknown = sorted({repr(part) for part in parts if part not in splits.PARTS})
        if unknown:
            raise TaskError(f"{name}: split is {some(unknown)}; expected train, valid or test")
        return tuple(splits.official(parts, clues))
    if any(row.fold for row in rows):
        bare = [row.file_name for row in rows if not row.fold]
        if bare:
            raise TaskError(f"{name}: {len(bare)} clips have no fold: {some(bare)}; give each one")
        folds = np.array([row.fold for row in rows])
        if len(np.unique(folds)) < 2:
            raise TaskError(
                f"{name}: all clips are of fold {folds[0]}; at least 2 folds are needed"
            )
        return tuple(splits.in_turn(folds, clues))
    return tuple(splits.by_group(clues) if grouped else splits.stratified(clues))


def _remedy(rows: Sequence[Row]) -> str:
    """What to do where the clips cannot be split into parts to train with and to test on."""
    if any(row.split for row in rows):
        return "mark some in the column split"
    if any(row.group for row in rows):
        return "clips of one group are never split: more groups are needed"
    return f"{len(rows)} clips are too few: give at least five of each class"


def _check_parts(name: str, rounds: Sequence[Round], remedy: str) -> None:
    for round_ in rounds:
        parts = {"train": round_.train, "validate": round_.valid, "test": round_.test}
        missing = [what for what, indices in parts.items() if not len(indices)]
        if missing:
            raise TaskError(f"{name}: no clips to {missing[0]} in round {round_.name}; {remedy}")


def _check_leaks(
    name: str,
    rounds: Sequence[Round],
    names: Sequence[str],
    digests: Sequence[str],
    groups: NDArray[np.str_] | None,
    allowed: bool,
) -> None:
    """Refuse, or warn, where training holds what the test asks for."""
    marks = {"the same content": digests}
    if groups is not None:
        marks["a group in common"] = groups.tolist()
    for what, marked in marks.items():
        found = list(splits.leaks(rounds, marked, names))
        if not found:
            continue
        message = f"{name}: {len(found)} test clips have {what} with training: {some(found)}"
        if not allowed:
            raise TaskError(f"{message}. Mend the split, or accept it with --allow-leakage")
        log.warning(message)
