"""The shape of every answer of our own routes.

Those of other protocols stand beside what reads their requests: OpenAI's in
`formats/openai_embeddings.py`, the Open Inference Protocol's in `formats/open_inference.py`.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema

from models.modelfile import GOLDEN_TOLERANCE
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


_SEVERAL = "Of several classifiers: what each says, in the order in which they are named."


class WindowClassification(BaseModel):
    """One window of a recording."""

    start_s: float
    end_s: float
    predictions: list[Prediction] | None = None
    novelty: NoveltyScore | None = None
    classifications: list[Classification] | None = Field(default=None, description=_SEVERAL)


class FileClassification(FileAnswer):
    """One file of a request: what the classifier says of it, or what is wrong with it."""

    object: Literal["classification"] = "classification"
    predictions: list[Prediction] | None = Field(
        default=None, description="Of the whole recording, best first."
    )
    novelty: NoveltyScore | None = None
    classifications: list[Classification] | None = Field(default=None, description=_SEVERAL)
    windows: list[WindowClassification] | None = None


class ClassificationList(BaseModel):
    """The answer to a request for classifications."""

    object: Literal["list"] = "list"
    model: str
    head: str | None = Field(default=None, description="The classifier that answers.")
    heads: list[str] | None = Field(
        default=None, description="The classifiers, where several answer."
    )
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


class QualityReport(BaseModel):
    """What was measured of a recording as it came, over all its channels."""

    container: str
    codec: str
    sample_rate: int = Field(description="Hz, before resampling.")
    channels: int = Field(description="Before the mix to mono.")
    duration_s: float
    bandwidth_hz: float | None = Field(
        default=None, description="The highest frequency within 70 dB of the strongest one."
    )
    clipped_share: float = Field(
        description="Of all samples: beyond full scale, or in a flat top close to it."
    )
    silent_share: float = Field(description="Of the time: below -60 dBFS.")
    dc_offset: float = Field(description="Mean of the channel whose mean is farthest from 0.")
    peak_dbfs: float | None = Field(default=None, description="None of digital silence.")
    rms_dbfs: float | None = Field(default=None, description="A full-scale sine has -3.")
    warnings: list[str] = Field(description="What may make the vector worth less, in words.")


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


class FileInspection(FileAnswer):
    """One file of a request: what it claims to be, and whether it would be accepted."""

    object: Literal["inspection"] = "inspection"
    is_accepted: bool
    container: str | None = None
    codec: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    is_duration_known: bool = Field(
        description="`duration_s` is what the headers claim, or what was decoded; else not known."
    )
    windows: int | None = Field(
        default=None, description="How many at most, with `window_s` and a known duration."
    )
    quality: QualityReport | None = Field(default=None, description="With `decode=true`.")


class InspectionList(BaseModel):
    """The answer to a request for an inspection; files that would be refused are no failure."""

    object: Literal["list"] = "list"
    model: str
    space_id: str
    is_decoded: bool
    note: str
    data: list[FileInspection]
    usage: Usage


class FileLogMel(FileAnswer):
    """One file of a request: the picture that the model sees, or what is wrong with the file."""

    object: Literal["log_mel"] = "log_mel"
    start_s: float | None = Field(default=None, description="Where in its recording it begins.")
    n_frames: int | None = None
    n_bands: int | None = None
    log_mel: str | None = Field(
        default=None,
        description="A byte for each frame and band in base64, frame by frame, the lowest band "
        "first: 0 for `low` or less, 255 for `high` or more.",
    )


class LogMelList(BaseModel):
    """The answer to a request for log-mel pictures."""

    object: Literal["list"] = "list"
    model: str
    space_id: str
    hop_s: float = Field(description="Seconds from one frame to the next.")
    low: float = Field(description="Natural logarithm of the power that the byte 0 stands for.")
    high: float = Field(description="And of that which the byte 255 stands for.")
    data: list[FileLogMel]
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
    max_collections: int = Field(description="Of one key.")
    max_collection_items: int = Field(description="Recordings in one collection.")
    max_collection_bytes: int = Field(description="Vectors, audio and metadata of a collection.")
    max_kept_days: float | None = Field(description="Then a recording is deleted; null: never.")
    max_classifiers: int = Field(description="In one pass over the audio.")
    max_fits: int = Field(description="Classifiers taught at the same time.")
    max_jobs: int = Field(description="Jobs of one key that wait or run.")
    max_job_uploads: int = Field(description="Uploads that one job names.")
    max_job_bytes: int = Field(
        description="Files of one key that wait for jobs, and its jobs with their results."
    )
    job_kept_hours: float = Field(description="Then a job that has ended is deleted.")
    upload_kept_hours: float = Field(description="Then an upload that no job has is deleted.")
    fit_timeout_s: float
    fit_memory_bytes: int
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
    """Whether requests are served, and by what: a list for each kind of model file."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, list[ModelStatus]] = Field(init=False)

    status: Literal["ready", "not ready"]
    reasons: list[str] = Field(default=[], description="Why it is not ready.")
    models: list[ModelStatus]
    classifiers: list[ModelStatus]
    redis: Literal["up", "down"] | None = Field(
        default=None,
        description="Where replicas share quotas; requests are served, or refused with 503, as "
        "VIOLA_REDIS_DOWN says, and a Redis that is down does not make a replica unready.",
    )


class Liveness(BaseModel):
    """That the process answers."""

    status: Literal["alive"] = "alive"


class SelfTest(BaseModel):
    """One file's golden values, computed now."""

    name: str
    kind: str = Field(description="`model` or `classifier`.")
    space_id: str
    status: Literal["passed", "failed"]
    difference: float | None = Field(
        default=None,
        description="Largest difference from the golden values, relative to the largest of them.",
    )
    tolerance: float = Field(default=GOLDEN_TOLERANCE, description="Largest that passes.")
    reason: str | None = None
    ms: float = Field(description="How long it took, without the wait for its turn.")


class SelfTestReport(BaseModel):
    """All golden values, computed now."""

    status: Literal["passed", "failed"]
    tests: list[SelfTest]


class KeyUsage(BaseModel):
    """What was used with one key."""

    key: str | None = Field(description="The key's name; null where no keys are asked for.")
    requests: int = Field(description="Requests and live streams that have ended.")
    audio_seconds: float = Field(description="Seconds of audio that were decoded.")


class UsageReport(BaseModel):
    """What was used since then."""

    object: Literal["list"] = "list"
    since: datetime
    replicas: Literal["all", "this"] = Field(
        description="Whose sums these are: of all replicas that share a Redis, or of this process."
    )
    data: list[KeyUsage]
