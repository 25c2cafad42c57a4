"""How good encoders are: every probe of every task, side by side, with spread and certainty.

Letters: `N` clips, `D` embedding dim, `K` classes.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from models.labelled.labels import some
from models.labelled.splits import Round
from models.labelled.tasks import Task, TaskError
from models.progress import TITLE, Bar
from models.terminal import counted
from training.evaluation import neighbours, scores
from training.evaluation.embeddings import Subject, embeddings
from training.evaluation.linear_probe import linear

SHOTS = (1, 5, 10)
SEARCH_DEPTH = 10
LEAST_ANSWERS = 3  # of a measure: where there are fewer rounds, seeds make them up
Floats = NDArray[np.float32]
log = logging.getLogger(__name__)
Ask = Callable[[Round, int], Floats]
"""Scores of the test part of a round, (n test, K), for a seed."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        seed: of the first answer; others follow.
        seeds: answers a round; None: as many as give three answers a task, or one.
        draws: examples that few-shot draws a round.
        skip_broken: leave out files that cannot be decoded.
    """

    seed: int = 42
    seeds: int | None = None
    draws: int = 5
    skip_broken: bool = False


@dataclass(frozen=True)
class Measure:
    """One number, and how it came about; all in [0, 1].

    Attributes:
        values: of each round and seed.
        low: of the 95 % bootstrap interval over test clips or their groups.
        high: likewise.
        by_class: recall, or average precision, of each class; empty for search.
        confusion: (K, K) counts, true classes in rows; empty for several labels.
    """

    values: tuple[float, ...]
    low: float
    high: float
    by_class: tuple[float, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def mean(self) -> float:
        """Over rounds and seeds."""
        return math.fsum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over rounds and seeds."""
        return float(np.std(self.values))


@dataclass(frozen=True)
class Result:
    """What a subject scores on a task, by measure: linear, knn, shots-1, ..., search."""

    task: Task
    subject: Subject
    embeddings: Floats
    measures: dict[str, Measure] = field(default_factory=dict)


def evaluate(
    tasks: Sequence[Task],
    subjects: Sequence[Subject],
    cache: Path,
    settings: Settings,
    console: Console,
) -> list[Result]:
    """Every measure of every subject on every task; tasks in turn, subjects within each.

    Raises:
        TaskError: a file cannot be decoded and is not to be left out, or no round of a task tests
            a label that it trains on.
    """
    for task in tasks:
        _check_rounds(task)
        _tell_of_untrained(task)
    results = []
    with _bars(console) as bars:
        for task in tasks:
            broken: dict[int, str] = {}
            noted = broken if settings.skip_broken else None
            vectors = [_embed(task, subject, cache, noted, bars) for subject in subjects]
            for index, reason in broken.items():
                console.print(f"left out {task.files[index].name}: {reason}", markup=False)
            rest = task.without(sorted(broken)) if broken else task
            _check_rounds(rest)
            results += [
                _probe(rest, subject, found, settings, bars)
                for subject, found in zip(subjects, vectors, strict=True)
            ]
    return results


def _check_rounds(task: Task) -> None:
    labels = task.one_hot
    if not any((labels[r.train].any(0) & labels[r.test].any(0)).any() for r in task.rounds):
        raise TaskError(
            f"{task.name}: no round tests a label that it trains on; each label needs clips in at "
            "least two folds or groups, and some more to validate"
        )


def _tell_of_untrained(task: Task) -> None:
    """Warn of labels that are tested in a round that trains on none of their clips."""
    labels = task.one_hot
    unknown = np.zeros(labels.shape, np.bool_)
    for round_ in task.rounds:
        unknown[round_.test] |= labels[round_.test] & ~labels[round_.train].any(0)
    if unknown.any():
        log.warning(
            "%s: %s have labels that no clip trains in their round, and count as missed: %s; each "
            "label needs clips in at least two folds or groups, and some more to validate",
            task.name,
            counted(int(unknown.any(1).sum()), "test clip"),
            some([task.classes[index] for index in np.flatnonzero(unknown.any(0))]),
        )


def _embed(
    task: Task, subject: Subject, cache: Path, broken: dict[int, str] | None, bars: Progress
) -> Floats:
    bar = bars.add_task(f"{task.name}: embed, {subject.name}", total=task.n_clips)
    vectors = embeddings(task, subject, cache, broken, lambda n: bars.advance(bar, n))
    bars.remove_task(bar)
    return vectors


def _probe(
    task: Task, subject: Subject, vectors: Floats, settings: Settings, bars: Progress
) -> Result:
    bar = bars.add_task(f"{task.name}: probe, {subject.name}", total=len(SHOTS) + 3)
    measures = {}
    for name, measure in measure_all(task, vectors, settings):
        measures[name] = measure
        bars.advance(bar)
    bars.remove_task(bar)
    return Result(task, subject, vectors, measures)


def measure_all(task: Task, vectors: Floats, settings: Settings) -> Iterator[tuple[str, Measure]]:
    """All measures of the vectors (N, D) of a task's clips."""
    labels = task.one_hot
    seeds = settings.seeds or max(1, math.ceil(LEAST_ANSWERS / len(task.rounds)))
    yield "linear", _measure(task, lambda r, s: linear(vectors, labels, r, s), settings, seeds)
    yield "knn", _measure(task, lambda r, s: neighbours.knn(vectors, labels, r), settings, 1)
    for shots in SHOTS:
        ask = partial(_examples, vectors, labels, shots)
        yield f"shots-{shots}", _measure(task, ask, settings, settings.draws)
    yield "search", _search(task, vectors, settings)


def _examples(
    vectors: Floats, labels: NDArray[np.bool_], shots: int, round_: Round, seed: int
) -> Floats:
    return neighbours.few_shot(vectors, labels, round_, shots, seed)


def _measure(task: Task, ask: Ask, settings: Settings, n_seeds: int) -> Measure:
    """Ask each round `n_seeds` times, and sum up."""
    labels, several = task.one_hot, task.is_multilabel
    values: list[float] = []
    precisions: list[NDArray[np.float64]] = []
    answers = np.zeros(labels.shape, np.float32)  # the mean answer to each clip
    right, asked = np.zeros(len(labels)), np.zeros(len(labels))
    confusion = np.zeros((labels.shape[1],) * 2, np.int64)
    for round_ in task.rounds:
        truth = labels[round_.test]
        for seed in range(settings.seed, settings.seed + n_seeds):
            answer = ask(round_, seed)
            values.append(scores.measure(truth, answer, several))
            answers[round_.test] += answer
            asked[round_.test] += 1
            if several:
                precisions.append(scores.average_precisions(truth, answer))
            else:
                right[round_.test] += scores.hits(truth, answer)
                confusion += scores.confusion(truth, answer)
    tested = np.flatnonzero(asked)
    groups = None if task.groups is None else task.groups[tested]
    if several:
        mean_answers = answers[tested] / asked[tested, None]
        low, high = scores.interval_of_map(labels[tested], mean_answers, groups, settings.seed)
        by_class = _mean_of_known(np.stack(precisions))
        return Measure(tuple(values), low, high, by_class)
    hits = right[tested] / asked[tested]
    low, high = scores.interval_of_mean(hits, groups, settings.seed)
    recall = confusion.diagonal() / np.where(confusion.any(1), confusion.sum(1), np.nan)
    return Measure(
        tuple(values), low, high, tuple(recall.tolist()), tuple(map(tuple, confusion.tolist()))
    )


def _search(task: Task, vectors: Floats, settings: Settings) -> Measure:
    """mAP@10 of each round: test clips look for training clips of their label, where there are."""
    labels = task.one_hot
    found = np.full(len(labels), np.nan)
    values = []
    for round_ in task.rounds:
        precision = neighbours.average_precision_at(vectors, labels, round_, SEARCH_DEPTH)
        found[round_.test] = precision
        if not np.isnan(precision).all():
            values.append(float(np.nanmean(precision)))
    known = np.flatnonzero(~np.isnan(found))
    groups = None if task.groups is None else task.groups[known]
    low, high = scores.interval_of_mean(found[known], groups, settings.seed)
    return Measure(tuple(values), low, high)


def _mean_of_known(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Mean over rows, of what is a number: (R, K) -> K."""
    known = ~np.isnan(values)
    sums = np.where(known, values, 0).sum(0)
    return tuple(np.where(known.any(0), sums / np.maximum(known.sum(0), 1), np.nan).tolist())


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = TITLE, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=console, transient=True) as bars:
        yield bars
