"""Vectors -> what classifiers say of them, for recordings and their windows alike.

Letters: `N` windows of a file and the whole of it, `D` embedding dim, `K` classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.classifier import Classifier, ClassifierCard, Predictions
from service.engine import Embedded
from service.parameters import FunctionToApply, PredictionParameters
from service.problems import Problem
from service.schemas import Classification, NoveltyScore, Prediction

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What one classifier says of one file: row 0 is the whole recording, then its windows."""

    card: ClassifierCard
    rows: Predictions


def score(
    heads: Sequence[Classifier], outcomes: Sequence[Embedded | Problem]
) -> list[list[Scored] | Problem]:
    """What each classifier says of each file; problems stay where they are."""
    return [item if isinstance(item, Problem) else _score_file(heads, item) for item in outcomes]


def _score_file(heads: Sequence[Classifier], file: Embedded) -> list[Scored] | Problem:
    scored = [Scored(head.card, _predicted(head, file)) for head in heads]
    values = [array for s in scored for array in (s.rows.logits, s.rows.novelty)]
    if not all(np.isfinite(array).all() for array in values):
        return Problem("internal", "The classifier's answer for this file is not finite.")
    return scored


def _predicted(head: Classifier, file: Embedded) -> Predictions:
    """What a classifier says of the whole, then of the windows, whose vectors are not copied."""
    parts = [head.predict(file.embedding[None])]
    if file.windows is not None:
        parts.append(head.predict(file.windows.embedding))
    columns = zip(*((part.logits, part.probabilities, part.novelty) for part in parts), strict=True)
    logits, probabilities, novelty = (np.concatenate(column) for column in columns)
    return Predictions(logits=logits, probabilities=probabilities, novelty=novelty)


def describe(scored: Scored, row: int, asked: PredictionParameters) -> Classification:
    """One row of scores as the answer has it: the best labels first."""
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
