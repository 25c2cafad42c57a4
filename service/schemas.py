"""The shape of the answers about sound: vectors, predictions, analyses, refusals.

What the service says of itself is in `reports.py`; answers about collections, labels and jobs are
in `formats/`, and so are those of other protocols, beside what reads their requests: OpenAI's in
`formats/openai_embeddings.py`, the Open Inference Protocol's in `formats/open_inference.py`.
"""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema

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
