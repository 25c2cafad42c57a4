"""What goes over the wire: the parameters of a request and the shape of every answer."""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema

Output = Literal["json", "base64", "npy"]

# Left alone on the way out: orjson writes numpy arrays itself, and checking thousands of numbers
# one by one would cost more than the model.
Vector = Annotated[
    NDArray[np.float32] | str,
    SkipValidation,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "number"}},
                {"type": "string", "contentEncoding": "base64"},
            ],
            "description": "Numbers; with `output=base64`, little-endian float32 in base64.",
        }
    ),
]


class EmbeddingParameters(BaseModel):
    """What a request may ask for, in the query or as fields of the form; the form's fields win."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None,
        max_length=128,
        description="A model's id from `GET /v1/models`; else the default one.",
    )
    window_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Also the vectors of windows of so many seconds, in whole frames of the model.",
    )
    hop_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds from one window's start to the next; else `window_s`.",
    )
    output: Output = Field(
        default="json",
        description="`json`: numbers. `base64`: JSON with little-endian float32 in base64. "
        "`npy`: one NumPy array, of the files or of one file's windows.",
    )


class ProblemDocument(BaseModel):
    """A failure as RFC 9457 wants it: what, why, and the limit beside the value that met it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Which kind of problem; a page of this service explains it.")
    title: str
    status: int
    detail: str
    instance: str | None = Field(default=None, description="The request's id.")
    limit: float | None = None
    observed: float | None = None
    unit: str | None = None
    param: str | None = None
    file_index: int | None = Field(default=None, description="Which file of the request, from 0.")
    file: str | None = None
    error: dict[str, Any] | None = Field(
        default=None, description="The same for OpenAI's clients: message, type, param, code."
    )


class ProblemPage(BaseModel):
    """What the `type` of a problem stands for."""

    type: str
    status: int
    title: str
    remedy: str


class WindowEmbedding(BaseModel):
    """One window of a recording."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    start_s: float
    end_s: float
    embedding: Vector


class FileEmbedding(BaseModel):
    """One file of a request: its vector, or what is wrong with it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="Which file of the request, from 0.")
    file: str | None = Field(
        default=None, description="The file's name in the form, made printable."
    )
    duration_s: float | None = None
    embedding: Vector | None = Field(default=None, description="The vector of the whole recording.")
    windows: list[WindowEmbedding] | None = None
    error: ProblemDocument | None = Field(
        default=None, description="In place of the vector, if the file cannot be used."
    )


class Usage(BaseModel):
    """What the request came to."""

    audio_seconds: float
    windows: int


_EXAMPLE: Any = {
    "object": "list",
    "model": "byola-2048",
    "space_id": "5d1f0c",
    "data": [
        {
            "object": "embedding",
            "index": 0,
            "file": "clip.wav",
            "duration_s": 1.6,
            "embedding": [0.25, -1.5],
            "windows": [
                {"start_s": 0.0, "end_s": 0.8, "embedding": [0.25, -1.25]},
                {"start_s": 0.8, "end_s": 1.6, "embedding": [0.0, -1.5]},
            ],
        }
    ],
    "usage": {"audio_seconds": 1.6, "windows": 2},
}


class EmbeddingList(BaseModel):
    """The answer to a request for embeddings, in the shape that OpenAI's has."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    object: Literal["list"] = "list"
    model: str
    space_id: str = Field(description="Compare only vectors with the same space id.")
    data: list[FileEmbedding]
    usage: Usage


class ModelEntry(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    owned_by: Literal["viola"] = "viola"
    default: bool = Field(description="Whether it answers requests that name no model.")
    space_id: str
    card: dict[str, Any] = Field(
        description="What the model file says of itself, except for the golden vector."
    )


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class LimitList(BaseModel):
    """What a request may hold."""

    max_body_bytes: int
    max_files: int
    max_inflight: int
    body_timeout_s: float
    max_decoded_bytes: int
    min_duration_s: float
    max_duration_s: float
    max_request_duration_s: float
    min_sample_rate: int
    max_sample_rate: int
    max_channels: int
    max_windows: int
    max_overlap: int
    formats: list[str]
    media_types: list[str]
    outputs: list[Output]


class ModelStatus(BaseModel):
    """Whether one model file is served."""

    file: str | None = None
    name: str | None = None
    status: Literal["ready", "refused"]
    reason: str | None = None
    space_id: str | None = None
    golden_error: float | None = Field(
        default=None,
        description="Largest relative difference from the golden vector on this machine.",
    )


class Readiness(BaseModel):
    """Whether requests are served, and by what."""

    status: Literal["ready", "not ready"]
    models: list[ModelStatus]


class Liveness(BaseModel):
    """That the process answers."""

    status: Literal["alive"] = "alive"
