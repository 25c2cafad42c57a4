"""Embeddings in the shape of OpenAI's API: what a request may hold, and what the answer looks like.

https://platform.openai.com/docs/api-reference/embeddings; in the place of text stands audio.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from models.audio import SAMPLE_RATE
from models.card import Card
from service.audio.files import Upload
from service.clips import Embedded
from service.formats.json_body import (
    kind_of,
    member,
    parse_object,
    receive_json,
    refuse_query,
    take_values,
)
from service.parameters import Dimensions, JsonParameters
from service.problems import Problem, invalid_parameter
from service.schemas import Vector
from service.settings import Settings
from service.threads import in_thread
from service.traffic.budget import Share
from service.uploads.base64_audio import read_base64
from service.uploads.body import Body, Parse, keep

MAX_VALUES = 10_000  # of a body's JSON; the audio itself is few long strings


class OpenAIParameters(JsonParameters):
    """What stands beside the input."""

    model: str | None = Field(
        default=None, max_length=128, description="An id from `GET /v1/models`; else the default."
    )
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Numbers, or little-endian float32 in base64."
    )
    dimensions: Dimensions | None = Field(
        default=None, description="So many values of each vector, the first, at length 1."
    )
    user: str | None = Field(default=None, description="Ignored.")


class AudioData(JsonParameters):
    """A file in base64; its bytes and not `format` tell what it is."""

    model_config = ConfigDict(extra="ignore")

    data: str
    format: str | None = None


class InputAudio(JsonParameters):
    """A file as OpenAI's chat completions take it."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["input_audio"]
    input_audio: AudioData


class OpenAIRequest(OpenAIParameters):
    """A request for embeddings in OpenAI's shape."""

    input: str | InputAudio | list[str | InputAudio] = Field(
        description="One audio file or more, each as base64, as a `data:` URI, or as `input_audio`."
    )


class OpenAIEmbedding(BaseModel):
    """The vector of one file."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Vector
    duration_s: float


class OpenAIUsage(BaseModel):
    """What the request came to; a token is one of the model's frames, 80 ms for the default one."""

    prompt_tokens: int
    total_tokens: int
    audio_seconds: float


class OpenAIList(BaseModel):
    """The answer to a request for embeddings in OpenAI's shape."""

    object: Literal["list"] = "list"
    model: str
    space_id: str = Field(description="Compare only vectors with the same space id.")
    data: list[OpenAIEmbedding]
    usage: OpenAIUsage


async def read_openai(request: Request, settings: Settings) -> Parse[Body]:
    """Receive a request; its files and the members beside them are still to be parsed.

    Raises:
        Problem: for a body that is malformed, too large or too slow, or a parameter in the query.
    """
    refuse_query(request)
    share: Share = request.state.share
    document = await receive_json(request, settings)

    async def parse() -> Body:
        await take_values(document, MAX_VALUES, share)
        body = await in_thread(_parse, document, settings.max_files)
        keep(share, body.uploads)
        return body

    return parse


def _parse(body: bytearray, max_files: int) -> Body:
    document = parse_object(body)
    body.clear()
    given = member(document, "input")
    items = given if isinstance(given, list) else [given]
    if not items:
        raise invalid_parameter("input", "input is empty: send an audio file.", value="[]")
    if len(items) > max_files:
        raise Problem(
            "too-many-files",
            f"input holds {len(items)} files; at most {max_files} are accepted.",
            limit=max_files,
            observed=len(items),
            unit="files",
            param="input",
        )
    files = [Upload(_file(item, f"input[{index}]")) for index, item in enumerate(items)]
    return Body(files, {name: value for name, value in document.items() if name != "input"})


def _file(item: Any, name: str) -> bytes:
    if isinstance(item, str):
        return read_base64(item, name)
    audio = item.get("input_audio") if isinstance(item, dict) else None
    data = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(data, str):
        reason = (
            f"{name} is {kind_of(item)} without a file in it: expected base64, or "
            '{"type": "input_audio", "input_audio": {"data": base64, "format": "wav"}}.'
        )
        raise invalid_parameter(name, reason, value=kind_of(item))
    return read_base64(data, f"{name}.input_audio.data")


def openai_usage(card: Card, files: Sequence[Embedded]) -> OpenAIUsage:
    """What a request used: frames, counted as tokens, and seconds."""
    samples = [round(file.duration_s * SAMPLE_RATE) for file in files]
    n_frames = sum(math.ceil(n / card.frame_hop) for n in samples)
    return OpenAIUsage(
        prompt_tokens=n_frames,
        total_tokens=n_frames,
        audio_seconds=sum(file.duration_s for file in files),
    )
