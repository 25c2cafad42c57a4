"""Filters of a collection's items, as requests write them in JSON."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.collections.filters import EVERYTHING, Filter, Range
from service.collections.records import Value
from service.formats.json_body import validated
from service.formats.json_fields import parsed
from service.formats.metadata import MAX_METADATA, Key, Scalar
from service.naming import ItemId, LabelName
from service.parameters import JsonParameters, at_most
from service.problems import invalid_parameter

MAX_IDS = 1000  # of one filter, as many as a page of a list has
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")  # how a time begins, in RFC 3339


def _is_moment(given: Any) -> Any:
    """Refuse numbers, as such or as text: whether they count seconds would be guessed."""
    if not (isinstance(given, str) and _MOMENT.match(given)):
        raise PydanticCustomError("moment", "Input should be a time like 2026-11-27T21:00:00Z")
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_is_moment)]


class Bounds(JsonParameters):
    """Numbers, or texts in their order."""

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

    ids: Annotated[list[ItemId], Field(max_length=MAX_IDS)] | None = Field(
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


def filter_of(text: str | None) -> Filter:
    """A filter that stands in the query, as JSON.

    Raises:
        Problem: it is none.
    """
    if text is None:
        return EVERYTHING
    document = parsed("filter", text)
    if document is None:
        return EVERYTHING
    if not isinstance(document, dict):
        reason = "filter is no JSON object."
        raise invalid_parameter("filter", reason, value=text)
    return validated(FilterRequest, document).filter()


def _wanted(value: Scalar | Sequence[Scalar] | Bounds) -> Sequence[Value] | Range:
    if isinstance(value, Bounds):
        return Range(value.gt, value.gte, value.lt, value.lte)
    return [value] if isinstance(value, bool | int | float | str) else value


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
