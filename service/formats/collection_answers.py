"""The shape of answers about collections."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from service.collections.duplicates import Duplicate
from service.collections.job_records import Job
from service.collections.records import Collection, Item, Label, Verdict
from service.collections.search import Hit
from service.schemas import ProblemDocument, Usage


class CollectionAnswer(BaseModel):
    """A collection, and how much is in it."""

    object: Literal["collection"] = "collection"
    name: str
    model: str
    space_id: str = Field(description="Compare only vectors with the same space id.")
    dimensions: int
    granularity: Literal["window", "clip"]
    window_s: float | None = None
    hop_s: float | None = None
    keeps_audio: bool
    created_at: datetime
    items: int
    windows: int
    bytes: int = Field(description="Of vectors, audio and metadata.")

    @classmethod
    def of(cls, collection: Collection) -> Self:
        """The answer for a collection."""
        terms = collection.terms
        return cls(
            name=collection.name,
            model=terms.model,
            space_id=terms.space_id,
            dimensions=terms.dimensions,
            granularity="clip" if terms.window_s is None else "window",
            window_s=terms.window_s,
            hop_s=terms.hop_s,
            keeps_audio=terms.keeps_audio,
            created_at=moment(collection.created_at),
            items=collection.n_items,
            windows=collection.n_windows,
            bytes=collection.n_bytes,
        )


class CollectionList(BaseModel):
    """Your collections, by name."""

    object: Literal["list"] = "list"
    data: list[CollectionAnswer]


class ItemAnswer(BaseModel):
    """A recording of a collection."""

    object: Literal["item"] = "item"
    id: str
    sha256: str
    file: str | None = None
    duration_s: float
    windows: int
    has_audio: bool
    metadata: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, item: Item) -> Self:
        """The answer for an item."""
        return cls(
            id=item.id,
            sha256=item.sha256,
            file=item.file,
            duration_s=item.duration_s,
            windows=item.n_windows,
            has_audio=item.has_audio,
            metadata=dict(item.metadata),
            created_at=moment(item.created_at),
        )


class ItemPage(BaseModel):
    """Items, in the order in which they were added."""

    object: Literal["list"] = "list"
    data: list[ItemAnswer]
    next_cursor: int | None = Field(
        default=None, description="For the next page; the last one has none."
    )


class AddedItem(BaseModel):
    """One file of a request: the item that it is now, or what is wrong with it."""

    index: int = Field(description="Which file of the request, from 0.")
    file: str | None = None
    is_new: bool = Field(description="Whether the content was not there before.")
    item: ItemAnswer | None = None
    warnings: list[str] | None = None
    error: ProblemDocument | None = None


class AddedItems(BaseModel):
    """What became of each file; what is named here is on the disk."""

    object: Literal["list"] = "list"
    collection: str
    model: str
    space_id: str
    data: list[AddedItem]
    usage: Usage


class HitAnswer(BaseModel):
    """A window that was found."""

    id: str
    start_s: float
    end_s: float
    score: float = Field(description="The cosine to what was looked for: 1 is the same.")
    percentile: float | None = Field(
        default=None,
        description="The percentage of random pairs of the collection that score less; not there "
        "where there are too few items to tell.",
    )
    file: str | None = None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, hit: Hit) -> Self:
        """The answer for a hit."""
        return cls(
            id=hit.item.id,
            start_s=hit.start_s,
            end_s=hit.end_s,
            score=round(hit.score, 6),
            percentile=hit.percentile,
            file=hit.item.file,
            metadata=dict(hit.item.metadata),
        )


class HitList(BaseModel):
    """What was found, best first."""

    object: Literal["list"] = "list"
    collection: str
    space_id: str
    exact: bool = Field(description="Whether every vector was looked at.")
    data: list[HitAnswer]


class DuplicateAnswer(BaseModel):
    """Two items that are near-duplicates, with their closest windows."""

    ids: tuple[str, str]
    start_s: tuple[float, float]
    score: float
    confidence: float

    @classmethod
    def of(cls, pair: Duplicate, names: dict[int, Item]) -> Self:
        """The answer for a pair; `names` are its items by key."""
        one, other = pair.items
        return cls(
            ids=(names[one].id, names[other].id),
            start_s=pair.start_s,
            score=pair.score,
            confidence=pair.confidence,
        )


class DuplicateList(BaseModel):
    """Near-duplicates, surest first."""

    object: Literal["list"] = "list"
    collection: str
    pairs: int = Field(description="How many there are, also beyond `limit`.")
    data: list[DuplicateAnswer]


class PlacedItem(BaseModel):
    """An item on the map."""

    id: str
    file: str | None = None
    x: float = Field(description="From -1 to 1, as `y`.")
    y: float
    cluster: int = Field(description="0 is the largest one.")


class ItemMap(BaseModel):
    """Items on a plane, so that what sounds alike lies together."""

    object: Literal["map"] = "map"
    collection: str
    data: list[PlacedItem]


class DeletedItems(BaseModel):
    """How many items are gone, with all that hung on them."""

    object: Literal["deleted"] = "deleted"
    items: int


class LabelAnswer(BaseModel):
    """What somebody said of an item, or of a stretch of it."""

    object: Literal["label"] = "label"
    id: int
    item: str
    label: str
    verdict: Verdict
    start_s: float | None = None
    end_s: float | None = None
    by: str = Field(description="The name of the API key; empty where there are none.")
    created_at: datetime

    @classmethod
    def of(cls, label: Label) -> Self:
        """The answer for a label."""
        return cls(
            id=label.key,
            item=label.item_id,
            label=label.label,
            verdict=label.verdict,
            start_s=label.start_s,
            end_s=label.end_s,
            by=label.by,
            created_at=moment(label.created_at),
        )


class LabelPage(BaseModel):
    """Labels, in the order in which they were added."""

    object: Literal["list"] = "list"
    data: list[LabelAnswer]
    next_cursor: int | None = Field(
        default=None, description="For the next page; the last one has none."
    )


def next_cursor(page: Sequence[Item | Job | Label], limit: int) -> int | None:
    """Where the page after this one begins; None behind a page that is not full."""
    return page[-1].key if len(page) == limit else None


def moment(seconds: float) -> datetime:
    """A time of the store, as a date."""
    return datetime.fromtimestamp(seconds, UTC)
