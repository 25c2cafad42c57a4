"""What a classifier file says of itself: how it was made, and what held-out clips say of it.

Letters: `N` clips, `M` of them held out, `K` classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from models.modelfile import Card


@dataclass(frozen=True)
class Notes:
    """What a person says of a classifier."""

    licence: str
    description: str = ""
    sources: tuple[Source, ...] = ()


def describe(
    task: Task,
    encoder: Card,
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
        thresholds=_thresholds(scaling, held, labels),
        encoder=encoder.name,
        space_id=encoder.space_id,
        embed_dim=encoder.embed_dim,
        method=Method(
            estimator="multi-layer perceptron" if kind is estimators.MLP else "logistic regression",
            regularisation=f"{kind.parameter} = {held.regularisation:g}",
            seed=seed,
        ),
        calibration=_calibration(scaling, judged, labels),
        scores=_scores(task, kind, held, judged),
        novelty=Novelty(
            method=f"one minus the cosine to the nearest of {n_references} training clips",
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


def _thresholds(scaling: Scaling | None, held: HeldOut, labels: Labels) -> list[float]:
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


def _scores(task: Task, kind: Kind, held: HeldOut, judged: Judged) -> Scores:
    labels = task.labels[held.index]
    folds = crossfit.round_scores(held, judged, labels)
    how, kept = f"{len(task.rounds)} parts of {task.name}, each held out once", "all clips"
    if len(task.rounds) == 1:
        how = f"the test part of {task.name}, in two halves"
        kept = "the training and validation parts"
    return Scores(
        metric="mAP" if task.is_multilabel else "accuracy",
        mean=float(np.mean(folds)),
        deviation=float(np.std(folds)),
        folds=folds,
        protocol=f"{how}; {kind.parameter} chosen by cross-validation on the other clips, "
        f"calibration and thresholds by the other parts; the file is trained on {kept}",
        classes=crossfit.class_scores(judged, labels, task.one_hot[held.index], task.classes),
    )
