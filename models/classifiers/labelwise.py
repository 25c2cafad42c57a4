"""A classifier of labels that hold by themselves, each learnt from the windows that say about it.

Nobody says of every window about every label. What is not known is left out: of a window that was
called a frog nobody has said that it is no bird. So each label has its own windows, is held out,
calibrated and tested by itself, and all of them share one graph. Letters: `N` windows, `K` labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from threadpoolctl import threadpool_limits

from models.classifier import (
    Calibration,
    ClassifierCard,
    ClassScores,
    GoldenScores,
    Method,
    Novelty,
    Scores,
    TrainingData,
)
from models.classifiers import calibration, crossfit, estimators, novelty
from models.classifiers.calibration import Scaling
from models.classifiers.card import Notes, Space, thresholds
from models.classifiers.fit import Embedded, Head, Proved, checked_graph, cross_validate
from models.classifiers.rounds import by_group, check_rounds, learnt, task_of
from models.classifiers.table import Table
from models.commit import git_commit

QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Each:
    """What cross-validation says of one label, whose windows are `rows` of the table."""

    label: str
    embedded: Embedded
    proved: Proved

    @property
    def truth(self) -> Any:
        """Whether the label holds for each window held out: (M, 1)."""
        return self.embedded.task.labels[self.proved.held.index]

    @property
    def folds(self) -> list[float]:
        """Average precision of each part that holds the label."""
        return crossfit.round_scores(self.proved.held, self.proved.judged, self.truth)

    @property
    def scores(self) -> ClassScores:
        """Over all windows held out."""
        (found,) = crossfit.class_scores(
            self.proved.judged, self.truth, self.truth, (self.label,)
        ).values()
        return found

    def sentence(self) -> str:
        """The same in words."""
        found, n_windows = self.scores, len(self.truth)
        return (
            f"{self.label!r}: average precision {found.average_precision:.2f} over {n_windows} "
            f"windows held out; {100 * found.recall:.0f} % of the {found.clips} that hold it are "
            f"found, and {100 * found.precision:.0f} % of what is said is right."
        )


def compose(
    table: Table, space: Space, name: str, notes: Notes, task: str, seed: int
) -> tuple[Any, ClassifierCard, list[str]]:
    """The graph of a classifier called `name`, its card, and what held-out windows say in words."""
    with threadpool_limits(1):
        each = [_prove(table, k, task, seed) for k in range(len(table.labels))]
        fitted = estimators.fit_known(
            [one.proved.held.regularisation for one in each],
            table.vectors,
            table.holds,
            table.known,
        )
        distances = _held_distances(table, seed)
    references = novelty.choose(table.vectors, table.holds, seed)
    head = Head(fitted, _joined([one.proved for one in each]), references, multi_label=True)
    proto, golden = checked_graph(head, table.vectors)
    limit = novelty.threshold(distances)
    far = Novelty(
        method=f"one minus the cosine to the nearest of {len(references.vectors)} training windows",
        threshold=limit,
        passing=float((distances <= limit).mean()),
    )
    card = _card(table, each, space, name, notes, task, seed, far, golden)
    return proto, card, [one.sentence() for one in each]


def _prove(table: Table, k: int, task: str, seed: int) -> Each:
    rows = np.flatnonzero(table.known[:, k])
    holds = table.holds[rows, k : k + 1]
    rounds = by_group(np.hstack([holds, ~holds]), table.groups[rows], seed)
    check_rounds(rounds, np.hstack([holds, ~holds]), (table.labels[k], "anything else"), task)
    made = task_of(f"{task}: {table.labels[k]}", (table.labels[k],), holds, table, rows, rounds)
    embedded = Embedded(table.vectors[rows], table.seconds[rows], made)
    return Each(
        table.labels[k], embedded, cross_validate(embedded, estimators.LOGISTIC, seed, QUIET)
    )


def _joined(proved: Sequence[Proved]) -> Scaling:
    """The labels' scalings as one."""
    each = [one.scaling or calibration.unchanged(1) for one in proved]
    return Scaling(
        np.concatenate([one.scale for one in each]), np.concatenate([one.shift for one in each])
    )


def _held_distances(table: Table, seed: int) -> Any:
    """How far each window lies from those of other groups: (N,)."""
    distances = np.empty(len(table.vectors))
    for round_ in by_group(table.holds, table.groups, seed):
        others = learnt(round_)
        known = novelty.choose(table.vectors[others], table.holds[others], seed)
        distances[round_.test] = known.distance(table.vectors[round_.test])
    return distances


def _card(
    table: Table,
    each: Sequence[Each],
    space: Space,
    name: str,
    notes: Notes,
    task: str,
    seed: int,
    far: Novelty,
    golden: GoldenScores,
) -> ClassifierCard:
    chosen = [f"{one.proved.held.regularisation:g}" for one in each]
    errors = np.mean([[one.proved.errors[0], _error(one)] for one in each], axis=0)
    return ClassifierCard(
        name=name,
        description=notes.description,
        licence=notes.licence,
        labels=list(table.labels),
        multi_label=True,
        thresholds=[thresholds(one.proved.scaling, one.proved.held, one.truth)[0] for one in each],
        encoder=space.encoder,
        space_id=space.space_id,
        embed_dim=space.embed_dim,
        method=Method(
            estimator="logistic regression",
            regularisation=f"C = {', '.join(chosen)}",
            seed=seed,
        ),
        calibration=Calibration(
            method="platt" if any(one.proved.scaling for one in each) else "none",
            ece_before=float(errors[0]),
            ece_after=float(errors[1]),
        ),
        scores=_scores(each, task, notes.protocol),
        novelty=far,
        training=TrainingData(
            task=task,
            clips=len(table.vectors),
            classes=table.counts,
            unit_s=round(float(np.median(table.seconds)), 3),
            sources=list(notes.sources),
        ),
        commit=git_commit(),
        golden=golden,
    )


def _error(one: Each) -> float:
    """Of the calibration that was kept."""
    return calibration.calibration_error(one.proved.judged.probabilities, one.truth)


def _scores(each: Sequence[Each], task: str, protocol: str) -> Scores:
    folds = [one.folds for one in each]
    by_fold = [
        float(np.mean([some[fold] for some in folds if fold < len(some)]))
        for fold in range(max(map(len, folds)))
    ]
    return Scores(
        metric="mAP",
        mean=float(np.mean([np.mean(some) for some in folds])),
        deviation=float(np.std(by_fold)),
        folds=by_fold,
        protocol=f"{len(by_fold)} parts of {task}, each held out once{protocol and ', ' + protocol}"
        "; each label by the windows that say whether it holds; C chosen by cross-validation on "
        "the other windows, calibration and thresholds by the other parts; the file is trained on "
        "all windows",
        classes={one.label: one.scores for one in each},
    )
