"""Vectors -> what classifiers say of them, for recordings and their windows alike.

Letters: `N` windows of a file and the whole of it, `D` embedding dim, `K` classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.classifier import Classifier, ClassifierCard, Predictions
from service.clips import Embedded
from service.exceptions import Failure, ServiceError
from service.parameters import FunctionToApply, PredictionParameters
from service.schemas import Classification, NoveltyScore, Prediction

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What one classifier says of one file: row 0 is the whole recording, then its windows."""

    card: ClassifierCard
    rows: Predictions


def score(
    classifiers: Sequence[Classifier], outcomes: Sequence[Embedded | Failure]
) -> list[list[Scored] | Failure]:
    """What each classifier says of each file; failures stay where they are."""
    return [
        _score_file(classifiers, item) if isinstance(item, Embedded) else item for item in outcomes
    ]


def score_vectors(classifiers: Sequence[Classifier], vectors: NDArray[np.float32]) -> list[Scored]:
    """What each classifier says of vectors (N, D).

    Raises:
        ServiceError: a score is not finite.
    """
    scored = [Scored(one.card, one.predict(vectors)) for one in classifiers]
    if not all(np.isfinite(one.rows.logits).all() for one in scored):
        raise ServiceError("internal", "The classifier's answer for these vectors is not finite.")
    return scored


def _score_file(classifiers: Sequence[Classifier], file: Embedded) -> list[Scored] | Failure:
    scored = [Scored(one.card, _predicted(one, file)) for one in classifiers]
    values = [array for s in scored for array in (s.rows.logits, s.rows.novelty)]
    if not all(np.isfinite(array).all() for array in values):
        return ServiceError("internal", "The classifier's answer for this file is not finite.")
    return scored


def _predicted(classifier: Classifier, file: Embedded) -> Predictions:
    """What a classifier says of the whole, then of the windows, whose vectors are not copied."""
    parts = [classifier.predict(file.embedding[None])]
    if file.windows is not None:
        parts.append(classifier.predict(file.windows.embedding))
    columns = zip(*((part.logits, part.probabilities, part.novelty) for part in parts), strict=True)
    logits, probabilities, novelty = (np.concatenate(column) for column in columns)
    return Predictions(logits=logits, probabilities=probabilities, novelty=novelty)


def describe(scored: Scored, row: int, asked: PredictionParameters) -> Classification:
    """One row of scores as it is answered: the best labels first."""
    card, rows = scored.card, scored.rows
    scores = applied(rows, row, asked.function_to_apply)
    best = np.argsort(-scores, kind="stable")[: asked.top_k]
    if asked.threshold is not None:
        best = best[scores[best] >= asked.threshold]
    novelty = float(rows.novelty[row])
    return Classification(
        head=card.name,
        predictions=[
            Prediction(
                label=card.labels[k],
                score=float(scores[k]),
                is_present=card.is_present(k, float(rows.probabilities[row, k])),
            )
            for k in best.tolist()
        ],
        novelty=NoveltyScore(
            score=novelty, threshold=card.novelty.threshold, is_novel=card.is_novel(novelty)
        ),
    )


def applied(rows: Predictions, row: int, function: FunctionToApply | None) -> Floats:
    """Scores (K,) of one row: the probabilities, or a function of the calibrated logits."""
    logits = rows.logits[row]
    if function is None:
        scores = rows.probabilities[row]
    elif function == "softmax":
        powers = np.exp(logits - logits.max())
        scores = powers / powers.sum()
    elif function == "sigmoid":
        scores = 0.5 * (1 + np.tanh(logits / 2))  # never overflows
    else:
        scores = logits
    return np.asarray(scores, np.float64)
