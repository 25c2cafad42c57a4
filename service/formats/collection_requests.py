"""What requests about collections may ask for, in JSON, in the query, or as fields of a form."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from models.sources import normal
from service.collections.filters import EVERYTHING, Filter, Range
from service.collections.records import NewLabel, Value
from service.formats.exports import Export
from service.formats.json_body import refuse_twice, validated
from service.naming import ItemId, LabelName, without_nul
from service.parameters import PLAIN, JsonParameters, Seconds, Time, at_most
from service.problems import invalid_parameter

WINDOW_S = 5.0  # of a collection, unless it is made with another
MAX_PAGE = 1000
MAX_HITS = 1000
MAX_EXAMPLES = 64
MAX_METADATA = 32  # keys of an item
MAX_KEY = 64  # letters of one
MAX_METADATA_BYTES = 8 << 10  # of an item's keys and texts: lists tell those of a thousand items
MAX_LABELS = 1000  # in one request
MAX_WHOLE = 2**53  # beyond which whole numbers are no longer told apart
MAX_NUMBER = 2**63  # beyond which a whole number may have lost digits before it is looked at
VALUES = "a text, a number, true or false"
IN_JSON = ("filter", "items", "metadata", "negative", "negative_files", "positive")
"""Fields of a form, and of a query, whose text is JSON."""
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")  # how a time begins, in RFC 3339


def _kept_as_it_is(given: Any) -> Any:
    """Refuse what is no single value, and a number that would be kept as another one.

    A parser of JSON gives whole numbers beyond 64 bits as floats, their last digits lost.
    """
    if not isinstance(given, str | bool | int | float):
        raise ValueError(f"expected {VALUES}; what is not known is left out")
    if isinstance(given, float) and not abs(given) < MAX_NUMBER:
        raise ValueError(f"numbers are kept below {MAX_NUMBER}: send it as a text")
    if isinstance(given, int) and abs(given) > MAX_WHOLE:
        raise ValueError(f"whole numbers are kept up to {MAX_WHOLE}: send it as a text")
    return given


def _fits(name: str) -> str:
    """Refuse a name whose letters take more than they seem to in the form that is compared."""
    if (n_letters := len(normal(name))) > MAX_KEY:
        raise ValueError(f"a name has {n_letters} letters in Unicode's NFC; at most {MAX_KEY} may")
    return name


def _one_form(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuse names that filters could not tell apart: one name in two Unicode forms."""
    forms = [normal(name) for name in metadata]
    if twice := next((form for form in forms if forms.count(form) > 1), None):
        raise ValueError(f"{twice!r} is there twice, in two Unicode forms")
    return metadata


def _short(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuse metadata that a thousand times would be too much for an answer."""
    texts = [*metadata, *(value for value in metadata.values() if isinstance(value, str))]
    n_bytes = sum(len(text.encode()) for text in texts)
    if n_bytes > MAX_METADATA_BYTES:
        raise ValueError(f"names and texts take {n_bytes} bytes; at most {MAX_METADATA_BYTES} may")
    return metadata


def _is_moment(given: Any) -> Any:
    """Refuse numbers, as such or as text: whether they count seconds would be guessed."""
    if not (isinstance(given, str) and _MOMENT.match(given)):
        raise PydanticCustomError("moment", "Input should be a time like 2026-11-27T21:00:00Z")
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_is_moment)]
Text = Annotated[str, Field(max_length=512), AfterValidator(without_nul)]


def _kind_of_scalar(given: Any) -> str:
    if isinstance(given, str):
        return "(text)"
    return "(truth)" if isinstance(given, bool) else "(number)"


# By its kind, so that what is refused is told of that kind alone
Scalar = Annotated[
    Annotated[bool, Tag("(truth)")]
    | Annotated[int | float, Tag("(number)")]
    | Annotated[Text, Tag("(text)")],
    Discriminator(_kind_of_scalar),
    BeforeValidator(_kept_as_it_is),
]
Key = Annotated[
    str,
    Field(min_length=1, max_length=MAX_KEY),
    AfterValidator(without_nul),
    AfterValidator(_fits),
]
Metadata = Annotated[
    dict[Key, Scalar],
    Field(
        max_length=MAX_METADATA,
        description=f"Texts, numbers and truth values by name, {MAX_METADATA_BYTES} bytes.",
    ),
    AfterValidator(_short),
    AfterValidator(_one_form),
    at_most(MAX_METADATA),
]
Cursor = Annotated[int, Field(ge=0, le=2**62), PLAIN]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE), PLAIN]


class CollectionTerms(JsonParameters):
    """What a collection is of; decided when it is made; `reembed` alone changes it."""

    model_config = ConfigDict(extra="forbid")

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

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="A model's id from `GET /v1/models`; else the default one."
    )


class Bounds(JsonParameters):
    """Numbers, or texts in their order."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gt: Scalar | None = None
    gte: Scalar | None = None
    lt: Scalar | None = None
    lte: Scalar | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("at least one of gt, gte, lt and lte is needed")
        given = [bound for bound in (self.gt, self.gte, self.lt, self.lte) if bound is not None]
        if len({isinstance(bound, str) for bound in given}) > 1:
            raise ValueError("its bounds are numbers and texts: give numbers alone, or texts alone")
        return self


def _kind_of_wanted(given: Any) -> str:
    if isinstance(given, dict | Bounds):
        return "(range)"
    return "(list)" if isinstance(given, list) else "(value)"


Wanted = Annotated[
    Annotated[Scalar, Tag("(value)")]
    | Annotated[list[Scalar], Field(min_length=1, max_length=100), Tag("(list)")]
    | Annotated[Bounds, Tag("(range)")],
    Discriminator(_kind_of_wanted),
]


class FilterRequest(JsonParameters):
    """What holds of an item; everything that is said has to hold."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[ItemId], Field(max_length=MAX_PAGE)] | None = Field(
        default=None, description="It is one of these."
    )
    metadata: Annotated[
        dict[Key, Wanted],
        Field(max_length=MAX_METADATA),
        at_most(MAX_METADATA),
    ] = Field(default={}, description="A key has this value, one of these, or lies in that range.")
    labels: Annotated[list[LabelName], Field(max_length=100)] | None = Field(
        default=None, description="It has one of these labels, with the verdict positive."
    )
    without_labels: Annotated[list[LabelName], Field(max_length=100)] | None = Field(
        default=None, description="It has none of these labels, whatever the verdict."
    )
    created_from: Moment | None = Field(
        default=None, strict=False, description="It was added then or later."
    )
    created_to: Moment | None = Field(
        default=None, strict=False, description="It was added before."
    )

    def filter(self) -> Filter:
        """As the store takes it."""
        return Filter(
            self.ids,
            {name: _wanted(value) for name, value in self.metadata.items()},
            self.labels,
            self.without_labels,
            _seconds(self.created_from),
            _seconds(self.created_to),
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

    model_config = ConfigDict(extra="forbid")

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

    model_config = ConfigDict(extra="forbid")

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

    model_config = ConfigDict(extra="forbid")

    id: ItemId | None = None
    metadata: Metadata = {}


class ItemsRequest(JsonParameters):
    """What is said of the files of a request, beside them in the form or in the query."""

    model_config = ConfigDict(extra="forbid")

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


class ItemsQuery(BaseModel):
    """The same in the query of a request whose body is the file."""

    model_config = ConfigDict(extra="forbid")

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


class PageQuery(BaseModel):
    """A page of a list."""

    model_config = ConfigDict(extra="forbid")

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


class VectorsQuery(BaseModel):
    """In which form the vectors go."""

    model_config = ConfigDict(extra="forbid")

    output: Export = Field(
        default="parquet",
        description="`parquet`: a row a window, with its item, times, metadata and vector. `npy`: "
        "the vectors alone, as one array. `csv`: everything but the vectors, in the same order.",
    )


class DuplicatesQuery(BaseModel):
    """How sure one wants to be."""

    model_config = ConfigDict(extra="forbid")

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


class MapQuery(BaseModel):
    """Which items, and in how many clusters."""

    model_config = ConfigDict(extra="forbid")

    clusters: Clusters = 8
    seed: Seed = 0
    filter: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="JSON: as in a search."
    )


class Deletion(JsonParameters):
    """Which items to delete."""

    model_config = ConfigDict(extra="forbid")

    filter: FilterRequest = Field(description="Has to say something: no filter deletes everything.")


class LabelRequest(Stretch):
    """What somebody says of an item, or of a stretch of it."""

    model_config = ConfigDict(extra="forbid")

    item: ItemId
    label: LabelName
    verdict: Literal["positive", "negative", "unsure"] = "positive"

    def new_label(self) -> NewLabel:
        """As the store takes it."""
        return NewLabel(self.item, self.label, self.verdict, self.start_s, self.end_s)


class LabelsRequest(JsonParameters):
    """Labels to add, all or none of them."""

    model_config = ConfigDict(extra="forbid")

    labels: Annotated[list[LabelRequest], Field(min_length=1, max_length=MAX_LABELS)]


def said_of(asked: ItemsQuery, n_files: int) -> list[ItemAbout]:
    """What a request's texts say of each of its files.

    Raises:
        Problem: they are no JSON, or speak of other files.
        RequestValidationError: they are not what they should be.
    """
    texts = asked.model_dump(exclude_none=True, exclude={"stream"})
    return validated(ItemsRequest, from_texts(texts)).about(n_files)


def from_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a form or a query, those that hold JSON as what it says.

    Raises:
        Problem: one of them is no JSON.
    """
    return {name: _parsed(name, value) for name, value in fields.items()}


def filter_of(text: str | None) -> Filter:
    """A filter that stands in the query, as JSON.

    Raises:
        Problem: it is none.
    """
    if text is None:
        return EVERYTHING
    document = _parsed("filter", text)
    if document is None:
        return EVERYTHING
    if not isinstance(document, dict):
        reason = "filter is no JSON object."
        raise invalid_parameter("filter", reason, value=text)
    return validated(FilterRequest, document).filter()


def _parsed(name: str, value: Any) -> Any:
    if name not in IN_JSON or not isinstance(value, str):
        return value
    try:
        parsed = orjson.loads(value)
        refuse_twice(value)
        return parsed
    except orjson.JSONDecodeError as error:
        reason = f"{name} is not JSON: it breaks at column {error.colno}."
        raise invalid_parameter(name, reason, value=value) from None


def _wanted(value: Scalar | Sequence[Scalar] | Bounds) -> Sequence[Value] | Range:
    if isinstance(value, Bounds):
        return Range(value.gt, value.gte, value.lt, value.lte)
    return [value] if isinstance(value, bool | int | float | str) else value


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
