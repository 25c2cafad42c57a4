"""What a classifier does with clips that it has not seen: regularisation, calibration, scores.

Letters: `N` clips, `M` of them held out, `D` embedding dim, `K` classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from models.classifier import ClassScores
from models.classifiers import calibration, estimators, novelty
from models.classifiers.calibration import Array, Labels
from models.classifiers.estimators import Floats, Kind
from models.labelled import splits
from models.labelled.splits import Clues, Round
from models.labelled.tasks import Task

N_INNER = 3  # parts of the training clips that choose a regularisation
LOSS_WEIGHT = 1e-4  # decides between regularisations of the same accuracy
Split = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class HeldOut:
    """Answers of classifiers to clips of their test parts, one row a clip.

    Attributes:
        index: (M,) which clip.
        part: (M,) clips of one part were answered alike, or lie in one half of a single test part.
        logits: (M, K) before calibration.
        distance: (M,) to the training clips' embeddings.
        regularisation: the one that did best on the validation parts.
    """

    index: NDArray[np.int64]
    part: NDArray[np.int64]
    logits: Array
    distance: Array
    regularisation: float


@dataclass(frozen=True)
class Judged:
    """Answers of held-out clips after calibration, thresholds and novelty, which others set.

    Attributes:
        raw: (M, K) probabilities before calibration.
        probabilities: (M, K) after it.
        predicted: (M,) the class, or (M, K) which labels hold.
        is_known: (M,) whether a clip is not called novel.
    """

    raw: Array
    probabilities: Array
    predicted: Labels
    is_known: NDArray[np.bool_]

    @property
    def passing(self) -> float:
        """Share of clips that are not called novel."""
        return float(self.is_known.mean())


def hold_out(
    kind: Kind, embeddings: Floats, task: Task, rounds: Iterable[Round], seed: int
) -> HeldOut:
    """Let the classifier of each round answer its test part.

    Its regularisation is the best on clips held out of its own training part in turn, on the
    validation part where the task has one split; it then learns from both parts.
    """
    labels, classes = task.labels, task.one_hot
    indices, parts, logits, distances, right = [], [], [], [], []
    groups = np.array(task.digests) if task.groups is None else task.groups
    clues = Clues(classes, groups, seed)
    for number, round_ in enumerate(rounds):
        learnt = np.union1d(round_.train, round_.valid)
        inner = _inner(round_, clues) if len(task.rounds) > 1 else [(round_.train, round_.valid)]
        scores = np.mean([_validate(kind, embeddings, labels, *split, seed) for split in inner], 0)
        best = kind.choices[int(np.argmax(scores))]
        fitted = estimators.fit(kind, best, embeddings[learnt], labels[learnt], seed)
        known = novelty.choose(embeddings[learnt], classes[learnt], seed)
        indices.append(round_.test)
        parts.append(np.full(len(round_.test), number))
        logits.append(fitted.logits(embeddings[round_.test]))
        distances.append(known.distance(embeddings[round_.test]))
        right.append(scores)
    index, part = np.concatenate(indices), np.concatenate(parts)
    if len(indices) == 1:
        part = splits.deal(index, clues, 2)
        if len(np.unique(part)) < 2:  # all of one group
            part = np.arange(len(index)) % 2
    chosen = kind.choices[int(np.argmax(np.mean(right, axis=0)))]
    return HeldOut(index, part, np.concatenate(logits), np.concatenate(distances), chosen)


def _inner(round_: Round, clues: Clues) -> list[Split]:
    """A round's own clips dealt into parts, each held out in turn; groups are not torn.

    Where that leaves no clip of some class to learn from, the round's validation part does.
    """
    indices = np.union1d(round_.train, round_.valid)
    dealt = splits.deal(indices, clues, N_INNER)
    parts = [(indices[dealt != part], indices[dealt == part]) for part in range(N_INNER)]
    whole = [(train, valid) for train, valid in parts if len(valid) and _varied(train, clues)]
    return whole or [(round_.train, round_.valid)]


def _varied(train: NDArray[np.int64], clues: Clues) -> bool:
    """Whether every class holds for some clips and not for others."""
    counts = clues.labels[train].sum(axis=0)
    return bool(((counts > 0) & (counts < len(train))).all())


def _validate(
    kind: Kind,
    embeddings: Floats,
    labels: Labels,
    train: NDArray[np.int64],
    valid: NDArray[np.int64],
    seed: int,
) -> list[float]:
    """The score of each regularisation on held-out clips; of equals, the likelier is better."""
    scores = []
    for choice in kind.choices:
        fitted = estimators.fit(kind, choice, embeddings[train], labels[train], seed)
        logits = fitted.logits(embeddings[valid])
        loss = calibration.log_loss(logits, labels[valid])
        scores.append(_score(logits, labels[valid]) - LOSS_WEIGHT * loss)
    return scores


def judge(held: HeldOut, labels: Labels, *, calibrated: bool = True) -> Judged:
    """Judge the clips of each part by calibration, thresholds and novelty of the other parts.

    So no figure in a card comes from clips that it was fitted to. The labels are (M, ...); with
    `calibrated` False the probabilities stay as they are.
    """
    multi_label = labels.ndim == 2
    answers = np.empty_like(held.logits)
    predicted = np.empty_like(labels)
    is_known = np.empty(len(held.part), bool)
    as_is = calibration.unchanged(held.logits.shape[1])
    for part in np.unique(held.part):
        mine = held.part == part
        scaling = calibration.fit(held.logits[~mine], labels[~mine]) if calibrated else as_is
        answers[mine] = calibration.probabilities(
            scaling(held.logits[mine]), multi_label=multi_label
        )
        if multi_label:
            others = calibration.sigmoid(scaling(held.logits[~mine]))
            predicted[mine] = answers[mine] >= calibration.best_thresholds(others, labels[~mine])
        else:
            predicted[mine] = answers[mine].argmax(axis=1)
        is_known[mine] = held.distance[mine] <= novelty.threshold(held.distance[~mine])
    raw = calibration.probabilities(held.logits, multi_label=multi_label)
    return Judged(raw, answers, predicted, is_known)


def round_scores(held: HeldOut, judged: Judged, labels: Labels) -> list[float]:
    """Accuracy or mAP of each part; none of a part in which no label holds at all."""
    parts = [held.part == part for part in np.unique(held.part)]
    return [
        _score(judged.probabilities[part], labels[part])
        for part in parts
        if labels.ndim == 1 or labels[part].any()
    ]


def class_scores(
    judged: Judged, labels: Labels, classes: NDArray[np.bool_], names: tuple[str, ...]
) -> dict[str, ClassScores]:
    """Precision, recall, F1 and average precision of each class over all that was held out."""
    said = judged.predicted
    if said.ndim == 1:
        said = said[:, None] == np.arange(len(names))
    return {
        name: _of_class(judged.probabilities[:, k], said[:, k].astype(bool), classes[:, k])
        for k, name in enumerate(names)
    }


def _of_class(answers: Array, said: NDArray[np.bool_], holds: NDArray[np.bool_]) -> ClassScores:
    """What was answered of one class (M,), said of it (M,), and is so (M,)."""
    hits, n_said, n_held = int((said & holds).sum()), int(said.sum()), int(holds.sum())
    return ClassScores(
        precision=hits / max(1, n_said),  # 0 for a class that was never predicted
        recall=hits / max(1, n_held),
        f1=2 * hits / max(1, n_said + n_held),
        average_precision=float(average_precision_score(holds, answers)) if n_held else 0.0,
        clips=n_held,
    )


def _score(answers: Array, labels: Labels) -> float:
    """Accuracy, or the mean average precision over the labels that hold at all; 0 if none does."""
    if labels.ndim == 1:
        return float((answers.argmax(axis=1) == labels).mean())
    held = [k for k in range(labels.shape[1]) if labels[:, k].any()]
    scores = [average_precision_score(labels[:, k], answers[:, k]) for k in held]
    return float(np.mean(scores)) if scores else 0.0
