"""What requests about collections may ask for, in JSON, in the query, or as fields of a form."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.collections.records import NewLabel
from service.formats.exports import Export
from service.formats.filter_requests import FilterRequest
from service.formats.json_body import validated
from service.formats.json_fields import from_texts
from service.formats.metadata import Metadata
from service.naming import ItemId, LabelName
from service.parameters import PLAIN, JsonParameters, Parameters, Seconds, Time
from service.problems import invalid_parameter

WINDOW_S = 5.0  # of a collection, unless it is made with another
MAX_PAGE = 1000
MAX_HITS = 1000
MAX_EXAMPLES = 64
MAX_LABELS = 1000  # in one request

Cursor = Annotated[int, Field(ge=0, le=2**62), PLAIN]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE), PLAIN]


class CollectionTerms(JsonParameters):
    """What a collection is of; decided when it is made; `reembed` alone changes it."""

    model: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="A model's id from `GET /v1/models`; else the default one."
    )
    granularity: Literal["window", "clip"] = Field(
        default="window",
        description="`window`: the vectors of windows. `clip`: one vector for each recording.",
    )
    window_s: Seconds = Field(
        default=WINDOW_S, description="Seconds of a window, a frame at the least."
    )
    hop_s: Seconds | None = Field(
        default=None, description="Seconds from one window to the next; else `window_s`."
    )
    keeps_audio: bool = Field(
        default=False,
        description="Keep the files as well: to be played, and embedded again by another model.",
    )


class ReembedRequest(JsonParameters):
    """Which model a collection moves to."""

    model: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="A model's id from `GET /v1/models`; else the default one."
    )


class Stretch(JsonParameters):
    """A part of a recording, or all of it."""

    start_s: Time | None = Field(default=None, description="Where it begins, with `end_s`.")
    end_s: Time | None = Field(default=None, description="Where it ends, with `start_s`.")

    @model_validator(mode="after")
    def _is_a_stretch(self) -> Self:
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError("start_s and end_s belong together: give both, or neither")
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s must be more than start_s = {self.start_s:g}")
        return self


class Example(Stretch):
    """A sound to look for: an item or a stretch of it by `id`, or a vector."""

    id: ItemId | None = None
    vector: (
        Annotated[list[float], Field(min_length=1, max_length=1 << 16, fail_fast=True)] | None
    ) = Field(default=None, description="In the collection's space.")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.id is None) == (self.vector is None):
            raise ValueError("an example has either an id or a vector")
        if self.vector is not None and self.start_s is not None:
            raise ValueError("start_s and end_s belong to an id, not to a vector")
        return self


class SearchRequest(JsonParameters):
    """What to look for: files of a form, and `positive` and `negative` examples beside them."""

    positive: Annotated[list[Example], Field(max_length=MAX_EXAMPLES)] = Field(
        default=[], description="Sounds like it. Files of the form are so as well."
    )
    negative: Annotated[list[Example], Field(max_length=MAX_EXAMPLES)] = Field(
        default=[], description="Sounds unlike it; they count half."
    )
    negative_files: Annotated[list[Annotated[int, Field(ge=0), PLAIN]], Field(max_length=64)] = (
        Field(default=[], description="Which files of the form are unlike it, from 0.")
    )
    top_k: Annotated[int, Field(ge=1, le=MAX_HITS), PLAIN] = Field(
        default=10, description="How many hits, at the most."
    )
    group: Literal["item", "window"] = Field(
        default="item", description="`item`: the best window of each item. `window`: all windows."
    )
    filter: FilterRequest | None = Field(default=None, description="Only among items like these.")
    exact: bool = Field(
        default=True,
        description="Look at every vector. Else, in a collection of 50,000 windows or more, at the "
        "likely ones alone: about as good, and faster. The answer's `exact` says what was done.",
    )
    include_examples: bool = Field(
        default=False, description="Also find the items that are examples themselves."
    )
    min_percentile: Annotated[float, Field(ge=0, le=100), PLAIN] | None = Field(
        default=None,
        description="Leave out hits that are no closer than this percentage of random pairs.",
    )


class ItemAbout(JsonParameters):
    """What a client says of one file."""

    id: ItemId | None = None
    metadata: Metadata = {}


class ItemsRequest(JsonParameters):
    """What is said of the files of a request, beside them in the form or in the query."""

    id: ItemId | None = Field(default=None, description="Of the only file.")
    metadata: Metadata = Field(default={}, description="Of every file.")
    items: Annotated[list[ItemAbout], Field(max_length=1024)] | None = Field(
        default=None, description="For each file in their order, its `id` and `metadata`."
    )

    def about(self, n_files: int) -> list[ItemAbout]:
        """What is said of each file.

        Raises:
            Problem: there are more or fewer files than are spoken of.
            RequestValidationError: what is said of all and of one is together too much.
        """
        if self.id is not None and (n_files > 1 or self.items is not None):
            reason = "id is for one file alone: use items for several."
            raise invalid_parameter("id", reason, value=self.id)
        items = [ItemAbout(id=self.id)] * n_files if self.items is None else self.items
        if len(items) != n_files:
            reason = f"items speaks of {len(items)} files; there are {n_files}."
            raise invalid_parameter("items", reason, value=len(items), limit=n_files)
        together = ({"id": one.id, "metadata": self.metadata | one.metadata} for one in items)
        return [validated(ItemAbout, said) for said in together]


class ItemsQuery(Parameters):
    """The same in the query of a request whose body is the file."""

    stream: bool = Field(
        default=False,
        description="In the query alone: one file of any length; lines of JSON tell how far it is, "
        "and at last the item. So does `Accept: application/x-ndjson`.",
    )

    id: ItemId | None = Field(default=None, description="What the only file is to be called.")
    metadata: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="JSON: texts, numbers and truth values by name, of every file."
    )
    items: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="JSON: for each file its `id` and `metadata`."
    )


class PageQuery(Parameters):
    """A page of a list."""

    limit: Limit = Field(default=100, description="How many, at the most.")
    cursor: Cursor = Field(default=0, description="`next_cursor` of the page before.")


class ItemsPageQuery(PageQuery):
    """A page of the items that a filter leaves."""

    filter: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="JSON: as in a search."
    )


class LabelsPageQuery(PageQuery):
    """A page of labels."""

    item: ItemId | None = Field(default=None, description="Those of this item.")
    label: LabelName | None = Field(default=None, description="Those of this name.")


class VectorsQuery(Parameters):
    """In which form the vectors go."""

    output: Export = Field(
        default="parquet",
        description="`parquet`: a row a window, with its item, times, metadata and vector. `npy`: "
        "the vectors alone, as one array. `csv`: everything but the vectors, in the same order.",
    )


class DuplicatesQuery(Parameters):
    """How sure one wants to be."""

    confidence: Annotated[float, Field(ge=0.5, le=0.999999), PLAIN] = Field(
        default=0.99, description="That a pair is no mere neighbour: one in a hundred may be one."
    )
    limit: Limit = Field(default=100, description="How many pairs, at the most; the closest.")
    filter: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="JSON: as in a search."
    )


Clusters = Annotated[int, Field(ge=1, le=100, description="How many, at the most."), PLAIN]
Seed = Annotated[
    int, Field(ge=0, le=2**31 - 1, description="The same one gives the same map."), PLAIN
]


class MapQuery(Parameters):
    """Which items, and in how many clusters."""

    clusters: Clusters = 8
    seed: Seed = 0
    filter: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="JSON: as in a search."
    )


class Deletion(JsonParameters):
    """Which items to delete."""

    filter: FilterRequest = Field(description="Has to say something: no filter deletes everything.")


class LabelRequest(Stretch):
    """What somebody says of an item, or of a stretch of it."""

    item: ItemId
    label: LabelName
    verdict: Literal["positive", "negative", "unsure"] = "positive"

    def new_label(self) -> NewLabel:
        """As the store takes it."""
        return NewLabel(self.item, self.label, self.verdict, self.start_s, self.end_s)


class LabelsRequest(JsonParameters):
    """Labels to add, all or none of them."""

    labels: Annotated[list[LabelRequest], Field(min_length=1, max_length=MAX_LABELS)]


def said_of(asked: ItemsQuery, n_files: int) -> list[ItemAbout]:
    """What a request's texts say of each of its files.

    Raises:
        Problem: they are no JSON, or speak of other files.
        RequestValidationError: they are not what they should be.
    """
    texts = asked.model_dump(exclude_none=True, exclude={"stream"})
    return validated(ItemsRequest, from_texts(texts)).about(n_files)
