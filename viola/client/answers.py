"""What the service answers, as Python has it: vectors are NumPy arrays, the rest plain values.

Letters: `D` embedding dim, `N` windows.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viola.client.errors import broken

Members = Mapping[str, Any]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """A label and its score; `is_present` is None where exactly one label holds."""

    label: str
    score: float
    is_present: bool | None = None


@dataclass(frozen=True)
class Novelty:
    """How far a sound is from what the classifier learnt from."""

    score: float
    threshold: float
    is_novel: bool


@dataclass(frozen=True)
class Labels:
    """What one classifier says: the best label first."""

    head: str
    predictions: tuple[Prediction, ...]
    novelty: Novelty

    @property
    def best(self) -> Prediction | None:
        """The label that fits best; None where all are below the threshold that was asked for."""
        return self.predictions[0] if self.predictions else None


@dataclass(frozen=True)
class Window:
    """A part of a recording: its vector (D,) and what classifiers say, as far as asked for."""

    start_s: float
    end_s: float
    embedding: Vector | None = None
    labels: tuple[Labels, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the service says of one sound.

    Attributes:
        model: the encoder; vectors may be compared where `space_id` is the same.
        file: the name of the file; None where a sound has none.
        duration_s: seconds that were heard.
        embedding: the vector (D,); None where only labels were asked for.
        labels: what each classifier says.
        windows: parts of the recording, where asked for.
        warnings: what may make the answer worth less.
        quality: what the recording is like, from `analyze` alone.
    """

    model: str
    space_id: str
    file: str | None
    duration_s: float
    embedding: Vector | None = None
    labels: tuple[Labels, ...] = ()
    windows: tuple[Window, ...] = ()
    warnings: tuple[str, ...] = ()
    quality: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Prediction | None:
        """The best label of the first classifier."""
        return self.labels[0].best if self.labels else None

    @property
    def embeddings(self) -> Vector:
        """Vectors of the windows, (N, D)."""
        found = [window.embedding for window in self.windows if window.embedding is not None]
        return np.stack(found) if found else np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Card:
    """A model or a classifier that is served, with what its file says of itself."""

    id: str
    is_default: bool
    space_id: str
    card: Mapping[str, Any]
    models: tuple[str, ...] = ()


def single(document: Members, file: str | None) -> Answer:
    """The answer to a request with one file.

    Raises:
        ServiceError: the file carries an error.
    """
    (found,) = document["data"]
    return answer(document, found, file)


def answer(about: Members, found: Members, file: str | None) -> Answer:
    """One file of an answer; `about` says which model and classifier it is from.

    Raises:
        ServiceError: the file carries an error.
    """
    if found.get("error"):
        raise broken(found["error"])
    return Answer(
        model=about["model"],
        space_id=about["space_id"],
        file=found.get("file") or file,
        duration_s=found["duration_s"],
        embedding=vector(found),
        labels=_labels(found, about.get("head", "")),
        windows=tuple(window(one, about.get("head", "")) for one in found.get("windows") or ()),
        warnings=tuple(found.get("warnings") or ()),
        quality=found.get("quality") or {},
    )


def window(found: Members, head: str = "") -> Window:
    """One window of an answer or of a stream."""
    return Window(found["start_s"], found["end_s"], vector(found), _labels(found, head))


def cards(document: Members) -> list[Card]:
    """A list of models or classifiers."""
    return [
        Card(
            id=entry["id"],
            is_default=entry["default"],
            space_id=entry["space_id"],
            card=entry["card"],
            models=tuple(entry.get("models", ())),
        )
        for entry in document["data"]
    ]


def vector(found: Members) -> Vector | None:
    """The vector of an answer (D,), from base64 or from numbers."""
    value = found.get("embedding")
    if value is None:
        return None
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4").astype(np.float32)
    return np.array(value, np.float32)


def labels(classifications: Iterable[Members], head: str = "") -> tuple[Labels, ...]:
    """What each classifier says; `head` is the name of one that does not tell it."""
    return tuple(
        Labels(
            head=one.get("head") or head,
            predictions=tuple(Prediction(**prediction) for prediction in one["predictions"]),
            novelty=Novelty(**one["novelty"]),
        )
        for one in classifications
    )


def _labels(found: Members, head: str) -> tuple[Labels, ...]:
    """What the classifiers of an answer say: several in `classifications`, or one in it itself."""
    if found.get("predictions") is not None:
        return labels([found], head)
    return labels(found.get("classifications") or (), head)
