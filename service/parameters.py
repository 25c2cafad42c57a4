"""What a request may ask for, in the query or as fields of the form; the form's fields win.

Every number that a client gives is finite, has bounds, and is `PLAIN`.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    InitErrorDetails,
    PydanticCustomError,
    PydanticKnownError,
)

from models.selection import MAX_TIME_S, Selection
from service.naming import CHANNEL
from service.output_names import ENCODINGS, OUTPUTS

Granularity = Literal["clip", "window"]
FunctionToApply = Literal["softmax", "sigmoid", "none"]
if TYPE_CHECKING:  # which names there are is known when it runs
    Encoding: TypeAlias = str
    Output: TypeAlias = str
else:
    Encoding, Output = Literal[tuple(ENCODINGS)], Literal[tuple(OUTPUTS)]

_ABOUT = ("description", "default", "title")  # of a member's schema, rather than its values

LISTS = ("classifier",)  # what may be given several times, in the query and in a form

MAX_TOP_K = 100
MAX_CLASSIFIERS = 16  # in one pass
MAX_SECONDS = 86_400  # of a window: a day
MAX_SCORE = 1e6  # of a threshold, which logits are compared with too
MAX_COUNT = 2**31 - 1
MAX_UNKNOWN = 4  # members that mean nothing and are told of; one is enough to refuse a request

_NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _plain(given: Any) -> Any:
    if isinstance(given, str) and not _NUMBER.fullmatch(given):
        raise PydanticCustomError("plain_number", "Input should be a number in plain digits")
    return given


PLAIN = BeforeValidator(_plain)
"""Of a number that comes as text: what Python alone takes for one, as `5_0` or ` 5`, is refused.

It stands behind the bounds, else the schema would not tell of them.
"""
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False), PLAIN]
Score = Annotated[float, Field(ge=-MAX_SCORE, le=MAX_SCORE, allow_inf_nan=False), PLAIN]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K), PLAIN]
Dimensions = Annotated[int, Field(ge=1, le=MAX_COUNT), PLAIN]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT), PLAIN]
Time = Annotated[float, Field(ge=0, le=MAX_TIME_S, allow_inf_nan=False), PLAIN]


def _about(outputs: Iterable[str]) -> str:
    """What the output formats of these names are, in a sentence each."""
    return " ".join(f"`{name}`: {OUTPUTS[name].about}." for name in outputs)


class Parameters(BaseModel):
    """What a request may say; a name that means nothing is refused.

    Raises:
        ValidationError: of `extra_forbidden` the context names, as `known`, what there is instead.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _names_the_known(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(given)
        except ValidationError as error:
            found = error.errors(include_url=False)
            if not any(map(_is_unknown, found)):
                raise
            told = [_with_known(details, cls.model_fields) for details in found]
            raise ValidationError.from_exception_data(error.title, told) from None


def _is_unknown(details: ErrorDetails) -> bool:
    """Whether the error is of an unknown member of the model itself, not of one within it."""
    return details["type"] == "extra_forbidden" and len(details["loc"]) == 1


def _with_known(details: ErrorDetails, known: Iterable[str]) -> InitErrorDetails:
    """An error as it was; of an unknown member, with the known ones."""
    context = {"known": tuple(known)} if _is_unknown(details) else details.get("ctx", {})
    kind = PydanticCustomError(details["type"], details["msg"], context)
    return InitErrorDetails(type=kind, loc=details["loc"], input=details["input"])


class JsonParameters(Parameters):
    """What JSON says: null is as good as not given, and a value is of the type that it has.

    A number is not read from a text, nor an integer from a fraction or a truth value. Of members
    that mean nothing only the first few are told: a list of a million would take gigabytes.
    """

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        unknown = islice((name for name in given if name not in cls.model_fields), MAX_UNKNOWN)
        known = [name for name in cls.model_fields if given.get(name) is not None]
        return {name: given[name] for name in (*known, *unknown)}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """As it is accepted: null wherever there is a default."""
        document = handler.resolve_ref_schema(handler(schema))
        for name, member in document.get("properties", {}).items():
            if name not in document.get("required", ()):
                document["properties"][name] = _nullable(member)
        return document


def at_most(n_members: int) -> BeforeValidator:
    """Refuses an object of more members before it looks at any of them."""

    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > n_members:
            counts = {"max_length": n_members, "actual_length": len(given)}
            raise PydanticKnownError("too_long", {"field_type": "Dictionary", **counts})
        return given

    return BeforeValidator(check)


def _nullable(member: JsonSchemaValue) -> JsonSchemaValue:
    options = member.get("anyOf", [])
    if {"type": "null"} in options or not member:
        return member
    value = {key: part for key, part in member.items() if key not in _ABOUT}
    about = {key: part for key, part in member.items() if key in _ABOUT}
    return {"anyOf": [value, {"type": "null"}], **about}


class SelectionParameters(Parameters):
    """Which part of each recording."""

    channel: str = Field(
        default="mix",
        pattern=CHANNEL,
        description="A channel's number, from 0; `mix` is the mean of all of them.",
    )
    start_s: Time = Field(
        default=0.0,
        description="Seconds from the recording's beginning, from which it is read.",
    )
    end_s: Annotated[float, Field(gt=0, le=MAX_TIME_S, allow_inf_nan=False), PLAIN] | None = Field(
        default=None,
        description="Seconds from the recording's beginning, to which it is read; else to its end.",
    )

    @field_validator("end_s")
    @classmethod
    def _is_behind_the_start(cls, end_s: float | None, info: ValidationInfo) -> float | None:
        start_s = info.data.get("start_s", 0.0)
        if end_s is not None and end_s <= start_s:
            raise ValueError(f"it must be more than start_s = {start_s:g}")
        return end_s

    @property
    def selection(self) -> Selection:
        """What the decoder is told."""
        channel: int | Literal["mix"] = "mix" if self.channel == "mix" else int(self.channel)
        return Selection(channel, self.start_s, self.end_s)


class LogMelParameters(SelectionParameters):
    """Which model, and which part of each recording."""

    model: str | None = Field(
        default=None,
        max_length=128,
        description="A model's id from `GET /v1/models`; else the default one.",
    )


class ModelParameters(LogMelParameters):
    """Which model, and which windows."""

    window_s: Seconds | None = Field(
        default=None,
        description="Also the vectors of windows of so many seconds, a frame at the least.",
    )
    hop_s: Seconds | None = Field(
        default=None,
        description="Seconds from one window's start to the next; else `window_s`.",
    )


_STREAM = Field(
    default=False,
    description="In the query alone: one file of any length, answered in lines of JSON while it is "
    "computed; so does `Accept: application/x-ndjson`. With `Accept: text/event-stream` the same "
    "documents come as Server-Sent Events.",
)


class EmbeddingParameters(ModelParameters):
    """What a request for embeddings may ask for."""

    stream: bool = _STREAM

    output: Output | None = Field(
        default=None,
        description=_about(OUTPUTS) + " Else what `Accept` names.",
    )
    dimensions: Dimensions | None = Field(
        default=None,
        description="So many values of each vector, the first, at length 1: a model with a readout "
        "has its best ones there. The space stays the same. Else all of them.",
    )


class InspectionParameters(ModelParameters):
    """What a request for an inspection may ask for."""

    window_s: Seconds | None = Field(
        default=None,
        description="Count windows of so many seconds, a frame at the least.",
    )
    decode: bool = Field(
        default=False,
        description="Also decode the streams: the verdict is then final, with a quality report.",
    )


def _names(value: Any) -> Any:
    """Names as they come: repeated, or in one text with commas between."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    names = [name.strip() for text in texts for name in text.split(",")]
    return list(dict.fromkeys(filter(None, names)))


Names = Annotated[
    list[Annotated[str, Field(max_length=128)]],
    BeforeValidator(_names),
    Field(min_length=1, max_length=MAX_CLASSIFIERS),
]


class PredictionParameters(ModelParameters):
    """Which predictions of which classifiers."""

    head: str | None = Field(
        default=None,
        max_length=128,
        description="A classifier's id from `GET /v1/classifiers`, which then chooses the model "
        "if none is named.",
    )
    classifier: Names | None = Field(
        default=None,
        description="The same, of one classifier or several: `classifier=a,b`, or repeated. All of "
        "them label one pass over the audio; of several, each has its own place in "
        "`classifications`.",
    )
    top_k: TopK = Field(default=5, description="How many labels, the best of them.")
    threshold: Score | None = Field(default=None, description="Leave out labels that score less.")
    function_to_apply: FunctionToApply | None = Field(
        default=None,
        description="What turns the calibrated logits into scores; else what the classifier was "
        "made with, `softmax`, or `sigmoid` if several labels can hold at once.",
    )

    @field_validator("classifier")
    @classmethod
    def _is_alone(cls, classifier: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if classifier is not None and info.data.get("head") is not None:
            raise ValueError("head names one already: name all of them here")
        return classifier

    @property
    def heads(self) -> list[str]:
        """The classifiers that are named; none at all where the usual one is to answer."""
        return [self.head] if self.head else self.classifier or []


class ClassificationParameters(PredictionParameters):
    """What a request for classifications may ask for."""

    stream: bool = _STREAM

    granularity: Granularity = Field(
        default="clip",
        description="`clip`: the recording as a whole. `window`: its windows as well.",
    )
    window_s: Seconds | None = Field(
        default=None,
        description="With `granularity=window`, seconds of a window, a frame at the least; "
        "else the length of the clips that the classifier was trained on.",
    )


class AnalysisParameters(PredictionParameters):
    """What a request for analyses may ask for."""

    head: str | None = Field(
        default=None,
        max_length=128,
        description="A classifier's id from `GET /v1/classifiers`; else all that fit the model.",
    )
    output: Encoding = Field(
        default="json",
        description=_about(ENCODINGS),
    )
