"""What a classifier file says of itself: how it was made, and what held-out clips say of it.

Letters: `N` clips, `M` of them held out, `K` classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.card import Card
from models.classifier import (
    Calibration,
    ClassifierCard,
    GoldenScores,
    Method,
    Novelty,
    Scores,
    Source,
    TrainingData,
)
from models.classifiers import calibration, crossfit, estimators, novelty
from models.classifiers.calibration import Labels, Scaling
from models.classifiers.crossfit import HeldOut, Judged
from models.classifiers.estimators import Kind
from models.commit import git_commit
from models.labelled.tasks import Task


@dataclass(frozen=True)
class Notes:
    """What a person says of a classifier."""

    licence: str
    description: str = ""
    sources: tuple[Source, ...] = ()
    protocol: str = ""
    """How it was tested, where the splits do not say it all."""


@dataclass(frozen=True)
class Space:
    """Where the vectors lie that a classifier takes, and what computes them."""

    encoder: str
    space_id: str
    embed_dim: int

    @classmethod
    def of(cls, card: Card) -> "Space":
        """That of an encoder."""
        return cls(card.name, card.space_id, card.embed_dim)


def describe(
    task: Task,
    space: Space,
    held: HeldOut,
    judged: Judged,
    *,
    name: str,
    kind: Kind,
    scaling: Scaling | None,
    n_references: int,
    learnt: NDArray[np.int64],
    unit_s: float,
    seed: int,
    notes: Notes,
    golden: GoldenScores,
) -> ClassifierCard:
    """The card of a classifier that was trained on the clips `learnt`; no `scaling`: uncalibrated.

    `judged` is what it says of clips held out.
    """
    labels = task.labels[held.index]
    return ClassifierCard(
        name=name,
        description=notes.description,
        licence=notes.licence,
        labels=list(task.classes),
        multi_label=task.is_multilabel,
        thresholds=thresholds(scaling, held, labels),
        encoder=space.encoder,
        space_id=space.space_id,
        embed_dim=space.embed_dim,
        method=Method(
            estimator="multi-layer perceptron" if kind is estimators.MLP else "logistic regression",
            regularisation=f"{kind.parameter} = {held.regularisation:g}",
            seed=seed,
        ),
        calibration=_calibration(scaling, judged, labels),
        scores=_scores(task, kind, held, judged, notes.protocol),
        novelty=Novelty(
            method=f"one minus the cosine to the nearest of {n_references} training {task.unit}s",
            threshold=novelty.threshold(held.distance),
            passing=judged.passing,
        ),
        training=TrainingData(
            task=task.name,
            clips=len(learnt),
            classes=dict(zip(task.classes, task.one_hot[learnt].sum(axis=0).tolist(), strict=True)),
            unit_s=round(unit_s, 3),
            sources=list(notes.sources),
        ),
        commit=git_commit(),
        golden=golden,
    )


def thresholds(scaling: Scaling | None, held: HeldOut, labels: Labels) -> list[float]:
    """From which probability on each label holds; none where exactly one does."""
    if labels.ndim == 1:
        return []
    logits = held.logits if scaling is None else scaling(held.logits)
    answers = calibration.sigmoid(logits)
    return calibration.best_thresholds(answers, labels.astype(bool))


def _calibration(scaling: Scaling | None, judged: Judged, labels: Labels) -> Calibration:
    single = labels.ndim == 1 and scaling is not None
    kept = "temperature" if single else "platt"
    return Calibration(
        method="none" if scaling is None else kept,
        temperature=float(1 / scaling.scale[0]) if scaling is not None and single else None,
        ece_before=calibration.calibration_error(judged.raw, labels),
        ece_after=calibration.calibration_error(judged.probabilities, labels),
    )


def _scores(task: Task, kind: Kind, held: HeldOut, judged: Judged, protocol: str) -> Scores:
    labels = task.labels[held.index]
    folds = crossfit.round_scores(held, judged, labels)
    how, kept = f"{len(task.rounds)} parts of {task.name}, each held out once", f"all {task.unit}s"
    if len(task.rounds) == 1:
        how = f"the test part of {task.name}, in two halves"
        kept = "the training and validation parts"
    return Scores(
        metric="mAP" if task.is_multilabel else "accuracy",
        mean=float(np.mean(folds)),
        deviation=float(np.std(folds)),
        folds=folds,
        protocol=f"{how}{protocol and ', ' + protocol}; {kind.parameter} chosen by "
        f"cross-validation on the other {task.unit}s, "
        f"calibration and thresholds by the other parts; the file is trained on {kept}",
        classes=crossfit.class_scores(judged, labels, task.one_hot[held.index], task.classes),
    )
