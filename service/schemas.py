"""The shape of every answer."""

from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema

from service.audio.quality import QualityReport
from service.parameters import FunctionToApply, Granularity, Output

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
            "description": "Numbers; in base64, little-endian float32, or float16 with "
            "`output=base64-f16`.",
        }
    ),
]


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
    error: dict[str, Any] | str | None = Field(
        default=None,
        description="The same for OpenAI's clients: message, type, param, code; below `/v2` the "
        "detail alone.",
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


class FileAnswer(BaseModel):
    """One file of a request: what was asked for, or what is wrong with it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    object: str
    index: int = Field(description="Which file of the request, from 0.")
    file: str | None = Field(
        default=None, description="The file's name in the form, made printable."
    )
    duration_s: float | None = Field(
        default=None, description="Of the recording, or of the part of it that was asked for."
    )
    warnings: list[str] | None = Field(
        default=None,
        description="What was noticed about the file that may make the answer worth less.",
    )
    error: ProblemDocument | None = Field(
        default=None, description="In place of the rest, if the file cannot be used."
    )


class FileEmbedding(FileAnswer):
    """One file of a request: its vector, or what is wrong with it."""

    object: Literal["embedding"] = "embedding"
    embedding: Vector | None = Field(default=None, description="The vector of the whole recording.")
    windows: list[WindowEmbedding] | None = None


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


class Prediction(BaseModel):
    """A label and how well it fits."""

    label: str
    score: float
    is_present: bool | None = Field(
        default=None,
        description="Of a multi-label classifier: whether the probability reaches the threshold "
        "that its card holds for this label.",
    )


class NoveltyScore(BaseModel):
    """How far the input lies from what the classifier was trained on."""

    score: float
    threshold: float
    is_novel: bool = Field(
        description="The score is above the threshold: do not rely on the predictions."
    )


class Classification(BaseModel):
    """What one classifier says."""

    head: str
    predictions: list[Prediction] = Field(description="Best first.")
    novelty: NoveltyScore


class WindowClassification(BaseModel):
    """One window of a recording."""

    start_s: float
    end_s: float
    predictions: list[Prediction]
    novelty: NoveltyScore


class FileClassification(FileAnswer):
    """One file of a request: what the classifier says of it, or what is wrong with it."""

    object: Literal["classification"] = "classification"
    predictions: list[Prediction] | None = Field(
        default=None, description="Of the whole recording, best first."
    )
    novelty: NoveltyScore | None = None
    windows: list[WindowClassification] | None = None


class ClassificationList(BaseModel):
    """The answer to a request for classifications."""

    object: Literal["list"] = "list"
    model: str
    head: str
    space_id: str
    data: list[FileClassification]
    usage: Usage


class WindowAnalysis(BaseModel):
    """One window of a recording."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    start_s: float
    end_s: float
    embedding: Vector
    classifications: list[Classification]


class FileAnalysis(FileAnswer):
    """One file of a request: all that is known of it, or what is wrong with it."""

    object: Literal["analysis"] = "analysis"
    embedding: Vector | None = Field(default=None, description="The vector of the whole recording.")
    classifications: list[Classification] | None = Field(
        default=None, description="One for each classifier, in the order of their names."
    )
    windows: list[WindowAnalysis] | None = None
    quality: QualityReport | None = None


class AnalysisList(BaseModel):
    """The answer to a request for analyses."""

    object: Literal["list"] = "list"
    model: str
    space_id: str = Field(description="Compare only vectors with the same space id.")
    data: list[FileAnalysis]
    usage: Usage


class ClassifierEntry(BaseModel):
    """A classifier that is served."""

    id: str
    object: Literal["classifier"] = "classifier"
    default: bool = Field(
        description="Whether it answers requests that name no head of its models."
    )
    models: list[str] = Field(description="The models whose embeddings it classifies.")
    space_id: str
    card: dict[str, Any] = Field(
        description="What the classifier file says of itself, except for the golden scores."
    )


class ClassifierList(BaseModel):
    """The classifiers that are served."""

    object: Literal["list"] = "list"
    data: list[ClassifierEntry]


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
    max_form_fields: int
    max_form_field_bytes: int
    max_json_nested: int
    max_json_values: int
    max_infer_json_values: int
    max_inflight: int
    max_connections: int
    body_timeout_s: float
    decode_cpu_s: float
    decode_wall_s: float
    decode_memory_bytes: int
    body_grace_s: float
    min_body_bytes_per_s: float
    audio_seconds_per_minute: float | None = Field(description="Of whoever asks; null: no quota.")
    max_inflight_per_key: int | None = Field(
        description="Of whoever asks; null: as many as there are places."
    )
    request_timeout_s: float
    max_queue_s: float
    max_streams: int
    max_live_streams: int
    head_timeout_s: float
    max_stream_duration_s: float
    max_stream_body_bytes: int
    memory_bytes: int
    min_answer_bytes_per_s: float
    idle_timeout_s: float
    max_decoded_bytes: int
    min_duration_s: float
    max_duration_s: float
    max_request_duration_s: float
    min_sample_rate: int
    max_sample_rate: int
    max_channels: int
    max_amplitude: float
    max_windows: int
    max_overlap: int
    formats: list[str]
    media_types: list[str]
    outputs: list[Output]
    granularities: list[Granularity]
    functions_to_apply: list[FunctionToApply]
    max_top_k: int


class ModelStatus(BaseModel):
    """Whether one file is served."""

    file: str | None = None
    name: str | None = None
    status: Literal["ready", "refused"]
    reason: str | None = None
    space_id: str | None = None
    golden_error: float | None = Field(
        default=None,
        description="Largest relative difference from the golden values on this machine.",
    )


class Readiness(BaseModel):
    """Whether requests are served, and by what."""

    status: Literal["ready", "not ready"]
    reasons: list[str] = Field(default=[], description="Why it is not ready.")
    models: list[ModelStatus]
    classifiers: list[ModelStatus]


class Liveness(BaseModel):
    """That the process answers."""

    status: Literal["alive"] = "alive"


class KeyUsage(BaseModel):
    """What was used with one key."""

    key: str | None = Field(description="The key's name; null where no keys are asked for.")
    requests: int = Field(description="Requests and live streams that have ended.")
    audio_seconds: float = Field(description="Seconds of audio that were decoded.")


class UsageReport(BaseModel):
    """What was used since the process started."""

    object: Literal["list"] = "list"
    since: datetime
    data: list[KeyUsage]
