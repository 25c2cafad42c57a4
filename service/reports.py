"""The shape of what the service says of itself: models, limits, health, self-test, usage."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.modelfile import GOLDEN_TOLERANCE
from service.parameters import FunctionToApply, Granularity, Output


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
