"""What answers about collections and taught classifiers hold."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from viola.client.answers import Members, Novelty, Prediction

R = TypeVar("R")


@dataclass(frozen=True)
class CollectionInfo:
    """A collection, and how much is in it."""

    name: str
    model: str
    space_id: str
    dimensions: int
    granularity: str
    keeps_audio: bool
    items: int
    windows: int
    bytes: int
    created_at: str
    window_s: float | None = None
    hop_s: float | None = None


@dataclass(frozen=True)
class Moved:
    """What became of a move to another model; `failed`: why, by the ids of items."""

    is_complete: bool
    collection: CollectionInfo
    failed: Mapping[str, str]


@dataclass(frozen=True)
class ItemInfo:
    """A recording of a collection."""

    id: str
    sha256: str
    duration_s: float
    windows: int
    has_audio: bool
    metadata: Mapping[str, Any]
    created_at: str
    file: str | None = None


@dataclass(frozen=True)
class Hit:
    """A window that was found; `percentile`: how many random pairs of the collection score less."""

    id: str
    start_s: float
    end_s: float
    score: float
    metadata: Mapping[str, Any]
    file: str | None = None
    percentile: float | None = None


@dataclass(frozen=True)
class Label:
    """What somebody said of an item, or of a stretch of it."""

    id: int
    item: str
    label: str
    verdict: str
    by: str
    created_at: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Duplicate:
    """Two items that are closer than neighbours are by chance."""

    ids: tuple[str, str]
    start_s: tuple[float, float]
    score: float
    confidence: float


@dataclass(frozen=True)
class Placed:
    """An item on the map of its collection, from -1 to 1, and the group that it is in."""

    id: str
    x: float
    y: float
    cluster: int
    file: str | None = None


@dataclass(frozen=True)
class Taught:
    """A version of a classifier that was made of labels; `verdict` says in words what it is worth.

    Attributes:
        mean: of the metric, over what was held out.
    """

    id: str
    version: int
    collection: str
    labels: tuple[str, ...]
    windows: int
    metric: str
    mean: float
    deviation: float
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """A window that nobody has labelled and that would teach much; `margin` 0: wholly unsure."""

    item: str
    start_s: float
    end_s: float
    margin: float
    predictions: tuple[Prediction, ...]
    novelty: Novelty


@dataclass(frozen=True)
class JobInfo:
    """A job, and how far it is; `error` says why it failed as a whole."""

    id: str
    kind: str
    state: str
    files: int
    files_done: int
    files_failed: int
    windows: int
    audio_seconds: float
    asked: Mapping[str, Any]
    created_at: str
    error: Mapping[str, Any] | None = None
    webhook: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    expires_at: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state not in ("queued", "running")


def record(kind: type[R], members: Members) -> R:
    """An answer's members as one of these; what a newer service says beside them is left out."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    plain = {name: value for name, value in members.items() if name in known}
    lists = {name: tuple(value) for name, value in plain.items() if isinstance(value, list)}
    return kind(**(plain | lists))


def proposal(members: Members) -> Proposal:
    """One window that is to be labelled."""
    predictions = tuple(Prediction(**one) for one in members["predictions"])
    novelty = Novelty(**members["novelty"])
    return record(Proposal, {**members, "predictions": predictions, "novelty": novelty})
