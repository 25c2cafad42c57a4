"""What a job may be asked for, in JSON, or in fields of a form beside its files."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, Field, field_validator, model_validator

from service.formats.collection_requests import Clusters, ItemsRequest, Limit, Seed
from service.formats.filter_requests import FilterRequest
from service.formats.json_body import refuse_twice, validated
from service.formats.teaching_requests import TeachRequest
from service.naming import KEY, WEB_ADDRESS, Name
from service.parameters import (
    PLAIN,
    ClassificationParameters,
    Dimensions,
    EmbeddingParameters,
    Encoding,
    Granularity,
    JsonParameters,
    ModelParameters,
    Parameters,
    PredictionParameters,
    Seconds,
)
from service.problems import invalid_parameter
from service.traffic.access import Scope

Kind = Literal["embed", "classify", "index", "teach", "map"]
WITHOUT_FILES: tuple[Kind, ...] = ("teach", "map")  # what is worked on is a collection
SCOPES: Mapping[Kind, Scope] = {
    "embed": "embed",
    "classify": "classify",
    "index": "search",
    "teach": "teach",
    "map": "search",
}
"""What a key may do that a job of the kind does for it."""

MAX_UPLOADS = 1000  # of one job
SECRET_PREFIX = "whsec_"
SECRET_BYTES = (24, 64)
MAX_KEY = 2**62

UploadId = Annotated[str, Field(pattern=KEY)]


class Webhook(JsonParameters):
    """Who is to be told when a job has ended, as Standard Webhooks wants it."""

    url: str = Field(
        max_length=2048,
        pattern=WEB_ADDRESS,
        description="Where to post to; its origin is one that whoever runs the service has named.",
    )
    secret: str = Field(
        max_length=128,
        description="`whsec_` and 24 to 64 random bytes in base64, which sign what is posted.",
    )

    @field_validator("secret")
    @classmethod
    def _is_a_secret(cls, secret: str) -> str:
        key_of(secret)
        return secret


def key_of(secret: str) -> bytes:
    """The bytes of the key that a webhook's secret stands for.

    Raises:
        ValueError: it is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    least, most = SECRET_BYTES
    if not (secret.startswith(SECRET_PREFIX) and least <= len(key) <= most):
        raise ValueError(f"it must be {SECRET_PREFIX} and {least} to {most} bytes in base64")
    return key


class EmbedJob(JsonParameters, ModelParameters):
    """Vectors of each file."""

    output: Encoding = Field(
        default="json",
        description="Vectors as numbers, or as little-endian float32 or float16 in base64.",
    )
    dimensions: Dimensions | None = Field(
        default=None, description="So many values of each vector, the first, at length 1."
    )

    def parameters(self) -> EmbeddingParameters:
        """The parameters of the same request to the route of embeddings."""
        return EmbeddingParameters(**self.model_dump(exclude_none=True))


class ClassifyJob(JsonParameters, PredictionParameters):
    """Labels of each file."""

    granularity: Granularity = Field(
        default="clip",
        description="`clip`: the recording as a whole. `window`: its windows as well.",
    )
    window_s: Seconds | None = Field(
        default=None, description="With `granularity=window`, seconds of a window."
    )

    def parameters(self) -> ClassificationParameters:
        """The parameters of the same request to the route of classifications."""
        return ClassificationParameters(**self.model_dump(exclude_none=True))


class IndexJob(ItemsRequest):
    """Each file becomes an item of a collection."""

    collection: Name = Field(description="Which one; it has to be there.")


class MapJob(JsonParameters):
    """A collection's items get places on a plane, and clusters."""

    collection: Name = Field(description="Which one; it has to be there.")
    clusters: Clusters = 8
    seed: Seed = 0
    filter: FilterRequest | None = Field(default=None, description="Only of items like these.")


class JobRequest(JsonParameters):
    """Work that goes on after the answer: exactly one of embed, classify, index, teach and map."""

    embed: EmbedJob | None = Field(default=None, description="Vectors of each file.")
    classify: ClassifyJob | None = Field(default=None, description="Labels of each file.")
    index: IndexJob | None = Field(
        default=None, description="Each file becomes an item of a collection."
    )
    teach: TeachRequest | None = Field(
        default=None, description="A collection's labels become a classifier; there are no files."
    )
    map: MapJob | None = Field(
        default=None, description="A collection's items on a plane; there are no files."
    )
    uploads: Annotated[list[UploadId], Field(max_length=MAX_UPLOADS)] = Field(
        default=[], description="Files that were uploaded before, by their ids, in their order."
    )
    webhook: Webhook | None = Field(
        default=None, description="Who is to be told when the job has ended."
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        named = [kind for kind in SCOPES if getattr(self, kind) is not None]
        if len(named) != 1:
            raise ValueError(f"exactly one of {', '.join(SCOPES)} is needed; there are {named}")
        if len(set(self.uploads)) != len(self.uploads):
            raise ValueError("an upload is named twice")
        return self

    @property
    def kind(self) -> Kind:
        """What is to be done."""
        return next(kind for kind in SCOPES if getattr(self, kind) is not None)

    def asked(self) -> dict[str, Any]:
        """The parameters of its kind, as they are kept and told."""
        parameters: BaseModel = getattr(self, self.kind)
        return parameters.model_dump(mode="json", exclude_unset=True)


class JobsQuery(Parameters):
    """A page of a key's jobs."""

    limit: Limit = Field(default=100, description="How many, at the most.")
    cursor: Annotated[int, Field(ge=0, le=MAX_KEY), PLAIN] | None = Field(
        default=None, description="`next_cursor` of the page before."
    )
    state: Literal["queued", "running", "done", "failed", "cancelled"] | None = Field(
        default=None, description="Those that are so."
    )


def of_form(fields: Mapping[str, Any]) -> JobRequest:
    """The same from the fields of a form, whose texts are JSON.

    Raises:
        Problem: one of them is no JSON.
        RequestValidationError: they are not what they should be.
    """
    document = {}
    for name, text in fields.items():
        try:
            document[name] = orjson.loads(text)
            refuse_twice(text)
        except orjson.JSONDecodeError as error:
            reason = f"{name} is not JSON: it breaks at column {error.colno}."
            raise invalid_parameter(name, reason, value=text) from None
    return validated(JobRequest, document)
