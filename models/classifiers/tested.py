"""What a classifier answered to labelled clips, and what that says in words.

Letters: `N` clips, `K` labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from models.classifiers import calibration
from models.classifiers.calibration import Array

CLOSE = 0.05  # between how often it is right and how sure it is
LITTLE = 0.05  # above always saying the commonest label, or half of what that gets wrong


@dataclass(frozen=True)
class Mistake:
    """A clip whose answer was wrong, and how sure the classifier was of what is wrong in it."""

    file: str
    truth: str
    answer: str
    score: float
    is_novel: bool


@dataclass(frozen=True)
class Tested:
    """Answers to clips, one row a clip.

    Attributes:
        name: of the classifier.
        labels: its K labels.
        multi_label: whether several can hold at once.
        files: of the N clips.
        truth: (N, K) which labels hold.
        probabilities: (N, K) what was answered.
        predicted: (N, K) which labels were said to hold.
        is_known: (N,) whether a clip was not called novel.
        unit: what a row is of: a clip, or a window.
        n_learnt: how many of the clips are known to be among those that it was trained on.
    """

    name: str
    labels: tuple[str, ...]
    multi_label: bool
    files: tuple[str, ...]
    truth: NDArray[np.bool_]
    probabilities: Array
    predicted: NDArray[np.bool_]
    is_known: NDArray[np.bool_]
    unit: str = "clip"
    n_learnt: int = 0

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether a clip got all of its labels and no other: (N,)."""
        right: NDArray[np.bool_] = (self.truth == self.predicted).all(axis=1)
        return right

    @property
    def accuracy(self) -> float:
        """Share of clips that are right."""
        return float(self.is_right.mean())

    @property
    def mean_average_precision(self) -> float:
        """Over the labels that hold for any clip."""
        held = [k for k in range(len(self.labels)) if self.truth[:, k].any()]
        return float(
            np.mean(
                [average_precision_score(self.truth[:, k], self.probabilities[:, k]) for k in held]
            )
        )

    @property
    def commonest(self) -> tuple[str, float]:
        """The commonest label, and the share of clips that it holds for."""
        counts = self.truth.sum(axis=0)
        return self.labels[int(counts.argmax())], float(counts.max() / len(self.truth))

    @property
    def confidence(self) -> float:
        """Mean probability of the best label."""
        return float(self.probabilities.max(axis=1).mean())

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Clips of each label (row) by what they were taken for, (K, K); of single labels."""
        cells = self.truth.argmax(axis=1) * len(self.labels) + self.predicted.argmax(axis=1)
        counts = np.bincount(cells, minlength=len(self.labels) ** 2)
        return counts.reshape(len(self.labels), -1).astype(np.int64)

    @property
    def calibration_error(self) -> float:
        """The expected one, in 15 bins."""
        labels = self.truth if self.multi_label else self.truth.argmax(axis=1).astype(np.int64)
        return calibration.calibration_error(self.probabilities, labels)

    def found(self) -> dict[str, tuple[int, int, int]]:
        """For each label: how often it was said rightly, said at all, and held."""
        hits = (self.truth & self.predicted).sum(axis=0).tolist()
        said, held = self.predicted.sum(axis=0).tolist(), self.truth.sum(axis=0).tolist()
        return dict(zip(self.labels, zip(hits, said, held, strict=True), strict=True))

    def mistakes(self) -> list[Mistake]:
        """The clips that went wrong, the surest first.

        It is as sure of a label that it missed as that label is unlikely, where several can hold.
        """
        wrong = np.flatnonzero(~self.is_right)
        sure = np.where(self.predicted & ~self.truth, self.probabilities, 0.0)
        if self.multi_label:
            sure = np.where(self.truth & ~self.predicted, 1 - self.probabilities, sure)
        best = sure.max(axis=1)
        return [
            Mistake(
                self.files[index],
                self._words(self.truth[index]),
                self._words(self.predicted[index]),
                float(best[index]),
                not self.is_known[index],
            )
            for index in wrong[np.argsort(-best[wrong], kind="stable")].tolist()
        ]

    def _words(self, holds: NDArray[np.bool_]) -> str:
        return ", ".join(np.array(self.labels)[holds].tolist()) or "none"


def verdict(tested: Tested) -> list[str]:
    """How good the classifier is, in sentences."""
    clips, sentences = f"{len(tested.files)} {tested.unit}s that it was not trained on", []
    if tested.n_learnt:
        clips = f"{len(tested.files)} {tested.unit}s"
        sentences.append(
            f"It was trained on {tested.n_learnt} of these {tested.unit}s at least, so that what "
            "follows is too good: test it on others."
        )
    if tested.multi_label:
        precision = _percent(tested.mean_average_precision)
        sentences.append(
            f"On {clips} its mean average precision over the labels is {precision}; all labels of "
            f"a {tested.unit} are right for {_percent(tested.accuracy)}."
        )
        return [*sentences, *_weakest(tested)]
    name, share = tested.commonest
    sentences.append(
        f"It is right about {_percent(tested.accuracy)} of {clips}; always saying {name!r} would "
        f"be right about {_percent(share)}."
    )
    if tested.accuracy < share + min(LITTLE, (1 - share) / 2):
        sentences.append(
            f"It has learnt next to nothing: more {tested.unit}s, or labels that can be heard, "
            "are needed."
        )
    return [*sentences, *_weakest(tested), honesty(tested)]


def honesty(tested: Tested) -> str:
    """Calibration in words: whether its scores can be believed."""
    right, sure = tested.accuracy, tested.confidence
    how = "they can be taken as they are"
    if sure > right + CLOSE:
        how = "it is surer than it should be"
    elif sure < right - CLOSE:
        how = "it is less sure than it could be, and thresholds should be low"
    return f"Its scores: right {_percent(right)}, average confidence {_percent(sure)}: {how}."


def _weakest(tested: Tested) -> list[str]:
    found = {name: (hits, held) for name, (hits, _, held) in tested.found().items() if held}
    name = min(found, key=lambda name: found[name][0] / found[name][1])
    hits, held = found[name]
    found_of = f"{hits} of {held} {tested.unit}s found"
    return [] if hits == held else [f"The weakest label is {name!r}: {found_of}."]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def one_hot(classes: NDArray[np.int64] | NDArray[np.bool_], n_classes: int) -> NDArray[np.bool_]:
    """Classes (N,) as (N, K); what is (N, K) already stays."""
    if classes.ndim == 2:
        return classes.astype(np.bool_)
    table: NDArray[np.bool_] = np.arange(n_classes) == classes[:, None]
    return table


def names(files: Sequence[str], index: NDArray[np.int64]) -> tuple[str, ...]:
    """The files of some clips; of windows, which have none, their numbers."""
    return tuple(files[i] if files else f"window {i}" for i in index.tolist())
