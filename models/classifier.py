"""A classifier: a small ONNX file that turns embeddings of one space into scores for labels.

It also says how far an embedding lies from those that it was trained on, so that what it was never
shown can be told from what it knows. Letters: `N` embeddings, `D` embedding dim, `K` classes.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from models import modelfile, shipped
from models.card import Packed, Part, packed, unpacked
from models.modelfile import DEFAULT_CLASSIFIER, GOLDEN_TOLERANCE, ModelFileError, WrongKindError
from models.reopen import Reopened

Floats = NDArray[np.float32]

INPUTS = ["embedding"]
OUTPUTS = ["probabilities", "logits", "novelty"]
BATCH = 1024  # embeddings at a time: memory does not grow with the recording


class Method(Part):
    """How the scores are computed and what was chosen on the way."""

    estimator: Literal["logistic regression", "multi-layer perceptron"]
    regularisation: str
    """What was chosen by cross-validation, such as `C = 0.01`."""

    seed: int = 0


class Calibration(Part):
    """How logits are calibrated, and the expected calibration error before and after."""

    method: Literal["temperature", "platt", "none"]
    """`temperature` divides all logits by one number, `platt` scales and shifts each label's;
    `none` where neither made held-out probabilities more honest."""

    temperature: float | None = None
    ece_before: float
    ece_after: float
    """On held-out clips, calibrated on others."""


class ClassScores(Part):
    """How one class fared on held-out clips."""

    precision: float
    recall: float
    f1: float
    average_precision: float
    clips: int


class Scores(Part):
    """What cross-validation estimated."""

    metric: Literal["accuracy", "mAP"]
    mean: float
    deviation: float
    folds: list[float]
    protocol: str
    classes: dict[str, ClassScores]


class Novelty(Part):
    """How inputs unlike the training data are told."""

    method: str
    threshold: float
    """Above it, an input is called novel."""

    passing: float
    """Share of held-out clips of the training data that are not called novel."""


class Source(Part):
    """One collection that the clips came from."""

    name: str
    licence: str = ""


class TrainingData(Part):
    """What the classifier learnt from."""

    task: str
    clips: int
    classes: dict[str, int]
    """Clips of each class."""

    unit_s: float = Field(gt=0)
    """Median length of the clips; longer recordings are better classified by windows of it."""

    sources: list[Source] = []


class GoldenScores(Part):
    """The scores of the reference embedding.

    The embedding is `offset + scale * w`, with `w` of `reference_embedding`: made, not stored.
    """

    signal: Literal["weyl-v1"] = "weyl-v1"
    offset: float
    scale: float
    logits: Packed
    probabilities: Packed
    novelty: float


class ClassifierCard(Part):
    """What a classifier file says of itself."""

    card_schema: Literal[1] = 1
    kind: Literal["classifier"] = "classifier"
    name: str
    description: str = ""
    licence: str
    labels: list[str] = Field(min_length=1)
    multi_label: bool
    """Whether several labels can hold at once; else exactly one does."""

    thresholds: list[float] = []
    """Of a multi-label classifier: the probability from which on each label holds."""

    encoder: str
    """Name of the encoder whose embeddings it was trained on."""

    space_id: str
    embed_dim: int = Field(gt=0)
    method: Method
    calibration: Calibration
    scores: Scores
    novelty: Novelty
    training: TrainingData
    commit: str = ""
    golden: GoldenScores

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label stands twice")
        if len(self.thresholds) != (len(self.labels) if self.multi_label else 0):
            raise ValueError("a multi-label classifier has a threshold a label, another has none")
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """Of an embedding and of its scores, one a label."""
        n_labels = len(self.labels)
        return {"embedding": self.embed_dim, "probabilities": n_labels, "logits": n_labels}

    def is_present(self, label: int, probability: float) -> bool | None:
        """Whether a label of a multi-label classifier holds; None where exactly one label does."""
        return probability >= self.thresholds[label] if self.multi_label else None

    def is_novel(self, novelty: float) -> bool:
        """Whether an input lies too far from the training data for its labels to mean much."""
        return novelty > self.novelty.threshold


@dataclass(frozen=True)
class Predictions:
    """Scores of N embeddings: probabilities and logits (N, K), both calibrated; novelty (N,)."""

    probabilities: Floats
    logits: Floats
    novelty: Floats


class Classifier(Reopened):
    """A classifier file, ready to predict; safe to use from several threads, and may be pickled.

    Example:
        `Classifier.open("sounds-10").predict(encoder.embed("dog.wav")[None])`
    """

    card: ClassifierCard

    def __init__(self, session: ort.InferenceSession, card: ClassifierCard) -> None:
        self.card = card
        self._session = session

    @classmethod
    def open(cls, path: str | Path = DEFAULT_CLASSIFIER) -> Self:
        """Open a classifier file, or by name one that ships; that of kinds of sound if not given.

        Raises:
            WrongKindError: it is an encoder.
            ModelFileError: the file is missing, broken or not a classifier.
        """
        file = shipped.find(path)
        kind = (ClassifierCard, "classifier", INPUTS, OUTPUTS)
        classifier = cls(*modelfile.open_as(*kind, file, _options()))
        classifier._open_again = partial(cls.open, file.absolute())
        return classifier

    @classmethod
    def of_bytes(cls, content: bytes, name: str) -> Self:
        """Open the content of a classifier file, as a classifier of this name.

        Raises:
            ModelFileError: it is broken or not a classifier.
        """
        kind = (ClassifierCard, "classifier", INPUTS, OUTPUTS)
        return cls(*modelfile.open_bytes(*kind, content, name, _options()))

    def check_space(self, space_id: str, encoder: str) -> None:
        """Refuse embeddings of another space.

        Raises:
            ModelFileError: naming both spaces.
        """
        card = self.card
        if space_id != card.space_id:
            fitting = ", ".join(shipped_for(space_id))
            ships = f"use {fitting}, which ships and fits {encoder}, or " if fitting else ""
            raise ModelFileError(
                f"{card.name} was trained on embeddings of {card.encoder}, space {card.space_id}; "
                f"{encoder} computes space {space_id}. Use that encoder, {ships}train the "
                "classifier again on this one with viola fit"
            )

    def predict(self, embeddings: ArrayLike) -> Predictions:
        """Scores of embeddings (N, D), as an array or as lists.

        Raises:
            ValueError: embeddings of another size, or what is no finite number.
        """
        embeddings = _numbers(embeddings)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.card.embed_dim:
            raise ValueError(
                f"embeddings of shape {embeddings.shape}; expected (N, {self.card.embed_dim})"
            )
        parts = [
            self._session.run(OUTPUTS, {"embedding": embeddings[first : first + BATCH]})
            for first in range(0, max(1, len(embeddings)), BATCH)
        ]
        return Predictions(*(np.concatenate(output) for output in zip(*parts, strict=True)))

    def self_test(self) -> float:
        """Classify the reference embedding: largest difference from the golden scores.

        Logits, probabilities and novelty count each relative to their largest.

        Raises:
            ModelFileError: this machine computes something else than the file says.
        """
        golden, name = self.card.golden, self.card.name
        embedding = reference_embedding(self.card.embed_dim, golden.offset, golden.scale)
        found = self.predict(embedding[None])
        pairs = (
            (found.logits[0], unpacked(golden.logits)),
            (found.probabilities[0], unpacked(golden.probabilities)),
            (found.novelty, np.array([golden.novelty], np.float32)),
        )
        error = max(_difference(one, other, name) for one, other in pairs)
        if not error <= GOLDEN_TOLERANCE:  # also when it is not a number
            raise ModelFileError(
                f"{name} is {error:.2g} off its golden scores on this machine; at most "
                f"{GOLDEN_TOLERANCE:g} is allowed: the file or the runtime is broken"
            )
        return error


def shipped_for(space_id: str) -> list[str]:
    """The names of the classifiers that ship and take embeddings of a space."""
    found: list[str] = []
    for name in shipped.names():
        with suppress(WrongKindError):  # an encoder
            if Classifier.open(name).card.space_id == space_id:
                found.append(name)
    return found


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # too small to share out; more would take the encoder's
    options.log_severity_level = 3
    return options


def reference_embedding(embed_dim: int, offset: float, scale: float) -> Floats:
    """An embedding (D,) that any machine makes alike: a Weyl sequence of mean 0 and variance 1."""
    fraction = np.arange(1, embed_dim + 1) * 0.618033988749895 % 1.0
    embedding: Floats = (offset + scale * np.sqrt(12.0) * (fraction - 0.5)).astype(np.float32)
    return embedding


def golden_scores(offset: float, scale: float, found: Predictions) -> GoldenScores:
    """What a card keeps of the predictions (N = 1) for the reference embedding."""
    return GoldenScores(
        offset=offset,
        scale=scale,
        logits=packed(found.logits[0]),
        probabilities=packed(found.probabilities[0]),
        novelty=float(found.novelty[0]),
    )


def _difference(found: Floats, golden: Floats, name: str) -> float:
    if found.shape != golden.shape:
        raise ModelFileError(f"{name} gives {found.shape} scores, its card holds {golden.shape}")
    return float(np.abs(found - golden).max() / max(float(np.abs(golden).max()), 1e-6))


def _numbers(embeddings: ArrayLike) -> Floats:
    """What is given as float32.

    Raises:
        ValueError: it holds something else than finite numbers.
    """
    try:
        with np.errstate(over="ignore"):  # what is too large is refused by name
            found = np.asarray(embeddings, np.float32)
    except (TypeError, ValueError):
        kind = type(embeddings).__name__
        raise ValueError(f"a {kind} is no table of embeddings; expected (N, D) numbers") from None
    if not np.isfinite(found).all():
        raise ValueError("the embeddings are not all finite numbers")
    return found
