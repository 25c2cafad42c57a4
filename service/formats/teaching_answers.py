"""The shape of answers about taught classifiers."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from models.runtime import Encoder
from service.collections.classifiers import Kept, Version
from service.inference.catalogue import Served
from service.reports import ClassifierEntry
from service.schemas import NoveltyScore, Prediction


class VersionEntry(BaseModel):
    """A version of a taught classifier."""

    version: int
    active: bool = Field(description="Whether it answers.")
    collection: str
    by: str = Field(description="The key that made it.")
    created_at: datetime
    bytes: int = Field(description="Of its file.")
    task: str
    labels: list[str]
    windows: int = Field(description="That it learnt from.")
    metric: str
    mean: float = Field(description="Of the metric, over the parts that were held out.")
    deviation: float
    seconds: float = Field(description="That learning took.")
    verdict: list[str] = Field(description="What held-out windows say of it, in words.")
    warnings: list[str] = Field(description="What to beware of, in words.")

    @classmethod
    def of(cls, kept: Kept, version: Version) -> Self:
        """The answer for a version."""
        card = version.about["card"]
        scores = card["scores"]
        return cls(
            version=version.number,
            active=version.number == kept.active,
            collection=version.collection,
            by=version.by,
            created_at=datetime.fromtimestamp(version.created_at, UTC),
            bytes=version.n_bytes,
            task=version.about["asked"]["task"],
            labels=card["labels"],
            windows=card["training"]["clips"],
            metric=scores["metric"],
            mean=scores["mean"],
            deviation=scores["deviation"],
            seconds=version.about["seconds"],
            verdict=version.about["verdict"],
            warnings=version.about["warnings"],
        )


class TaughtEntry(ClassifierEntry):
    """A classifier that was taught; `card` is that of the version that answers."""

    taught: Literal[True] = True
    version: int
    versions: list[VersionEntry] = Field(description="The newest first.")

    @classmethod
    def told(cls, kept: Kept, models: Iterable[Served[Encoder]]) -> Self:
        """The answer for a taught classifier; `models` are those that are served."""
        active = kept.version()
        space_id = active.about["card"]["space_id"]
        return cls(
            id=kept.name,
            default=False,
            models=[model.name for model in models if model.space_id == space_id],
            space_id=space_id,
            card=card_of(active),
            version=kept.active,
            versions=[VersionEntry.of(kept, version) for version in kept.versions],
        )


class ClassifierList(BaseModel):
    """The classifiers that are served, and those that the caller has taught."""

    object: Literal["list"] = "list"
    data: list[TaughtEntry | ClassifierEntry]


class VersionAnswer(VersionEntry):
    """A version with its card."""

    object: Literal["classifier.version"] = "classifier.version"
    id: str
    card: dict[str, Any]

    @classmethod
    def told(cls, kept: Kept, version: Version) -> Self:
        """The answer for a version, with its card."""
        entry = VersionEntry.of(kept, version)
        return cls(id=kept.name, card=card_of(version), **dict(entry))


class TaughtAnswer(VersionAnswer):
    """A classifier that has just been made, and answers from now on."""

    object: Literal["classifier.version"] = "classifier.version"
    loaded: Literal[True] = True
    total_s: float = Field(description="Seconds from the request to the loaded classifier.")


class NextWindow(BaseModel):
    """A window to label."""

    item: str
    start_s: float
    end_s: float
    margin: float = Field(description="How sure the classifier is: 0 is not at all, 1 is wholly.")
    predictions: list[Prediction] = Field(description="What it says now, best first.")
    novelty: NoveltyScore


class NextList(BaseModel):
    """Which windows to label next, the most telling first."""

    object: Literal["list"] = "list"
    head: str
    collection: str
    strategy: str
    considered: int = Field(description="Windows without any label that were looked at.")
    data: list[NextWindow]


def card_of(version: Version) -> dict[str, Any]:
    """A version's card without the golden scores."""
    card: dict[str, Any] = version.about["card"]
    golden = {
        name: value
        for name, value in card["golden"].items()
        if name not in ("logits", "probabilities")
    }
    return card | {"golden": golden}
