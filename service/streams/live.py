"""A live stream over a WebSocket: PCM as it is recorded -> vectors and labels, every hop.

The client sends a configuration as JSON, then PCM in binary messages of any length, then
`{"end": true}`. Letters: `S` samples.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from models.audio import AudioError, Resampler
from models.runtime import Floats
from models.tiles import checked
from service.context import Context
from service.engine import Windowing
from service.errors import audio_problem, validation_problem
from service.parameters import MAX_TOP_K, EmbeddingParameters, PredictionParameters
from service.problems import Problem
from service.streams.streaming import (
    Describe,
    Members,
    Plan,
    answers,
    describe_predictions,
    describe_vectors,
)

MAX_MESSAGE_BYTES = 1 << 20
CLOSE_NORMAL = 1000
CLOSE_PROBLEM = 4000  # and the status that the problem would have over HTTP

_DTYPES: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}


class LiveConfig(BaseModel):
    """The first message: what comes, and what is wanted."""

    model_config = ConfigDict(extra="forbid")

    sample_rate: int = Field(ge=8_000, le=48_000)
    encoding: Literal["s16le", "f32le"] = "s16le"
    model: str | None = Field(default=None, max_length=128)
    head: str | None = Field(default=None, max_length=128)
    window_s: float = Field(default=1.0, gt=0, le=60, allow_inf_nan=False)
    hop_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    output: Literal["json", "base64"] = "json"
    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K)


class _End(BaseModel):
    """The last message."""

    model_config = ConfigDict(extra="forbid")

    end: Literal[True]


async def converse(socket: WebSocket, shared: Context) -> None:
    """Serve one accepted socket until the client has ended its stream.

    Raises:
        Problem: for whatever is wrong; the socket is still open then.
        WebSocketDisconnect: the client has gone.
    """
    settings = shared.settings
    config = _config(await _receive(socket, settings.idle_timeout_s))
    plan = _plan(shared, config)
    await _send(socket, [plan.opening], settings.idle_timeout_s)
    spend = partial(shared.spend, socket.state.caller)
    async with (
        aclosing(_blocks(socket, config, shared)) as blocks,
        aclosing(answers(shared.engine.batcher, plan, blocks, spend)) as some,
    ):
        async for members in some:
            await _send(socket, members, settings.idle_timeout_s)


def _config(message: str | bytes) -> LiveConfig:
    if isinstance(message, bytes):
        raise Problem("bad-request", "The first message is text: the configuration as JSON.")
    try:
        return LiveConfig.model_validate_json(message)
    except ValidationError as error:
        raise validation_problem(error.errors()) from None


def _plan(shared: Context, config: LiveConfig) -> Plan:
    """As for a file, in tiles that add a hop: a frame leaves once all that it sees has come."""
    model = shared.catalogue.model_for(config.model, config.head)
    windowing = Windowing.of(config.window_s, config.hop_s, model.encoder.card)
    assert windowing is not None
    hop_frames = max(1, round(windowing.hop_s / windowing.frame_s))
    return Plan(model, "embedding", windowing, _described(shared, config), hop_frames)


def _described(shared: Context, config: LiveConfig) -> Describe:
    vectors = describe_vectors(EmbeddingParameters(output=config.output))
    if config.head is None:
        return vectors
    asked = PredictionParameters(top_k=config.top_k)
    labels = describe_predictions(shared.catalogue.head(config.head), asked)

    def both(rows: Floats) -> list[Members]:
        return [a | b for a, b in zip(vectors(rows), labels(rows), strict=True)]

    return both


async def _blocks(
    socket: WebSocket, config: LiveConfig, shared: Context
) -> AsyncGenerator[Floats, None]:
    """Samples (S,) at 16 kHz; the next message is taken once this one has been dealt with."""
    settings, dtype = shared.settings, _DTYPES[config.encoding]
    resampler, n_samples = Resampler(config.sample_rate), 0
    while isinstance(message := await _receive(socket, settings.idle_timeout_s), bytes):
        _check_message(message, dtype)
        n_samples += len(message) // dtype.itemsize
        _check_duration(n_samples / config.sample_rate, settings.max_stream_duration_s)
        if message:
            yield await asyncio.to_thread(_samples, message, dtype, resampler)
    try:
        _End.model_validate_json(message)
    except ValidationError:
        detail = 'After the configuration the only text is {"end": true}.'
        raise Problem("bad-request", detail) from None
    yield resampler.rest()


def _samples(message: bytes, dtype: np.dtype[Any], resampler: Resampler) -> Floats:
    """PCM -> floats in [-1, 1) -> samples (S,) at 16 kHz."""
    pcm: NDArray[Any] = np.frombuffer(message, dtype)
    scale = np.float32(2.0**-15 if dtype.kind == "i" else 1.0)
    with np.errstate(invalid="ignore"):  # a signalling NaN is refused below, and no line of the log
        samples = pcm.astype(np.float32) * scale
    try:
        return resampler.add(checked(samples))
    except AudioError as error:
        raise audio_problem(error) from None


def _check_message(message: bytes, dtype: np.dtype[Any]) -> None:
    if len(message) > MAX_MESSAGE_BYTES:
        raise Problem(
            "body-too-large",
            f"A message of {len(message)} bytes; at most {MAX_MESSAGE_BYTES} are accepted.",
            limit=MAX_MESSAGE_BYTES,
            observed=len(message),
            unit="bytes",
        )
    if len(message) % dtype.itemsize:
        detail = f"A message of {len(message)} bytes; a sample has {dtype.itemsize}."
        raise Problem("bad-request", detail)


def _check_duration(seconds: float, limit: float) -> None:
    if seconds > limit:
        raise Problem(
            "too-long",
            f"{seconds:.2f} s of audio exceed the limit of {limit:g} s for a stream.",
            limit=limit,
            observed=seconds,
            unit="s",
        )


async def _receive(socket: WebSocket, idle_timeout_s: float) -> str | bytes:
    try:
        async with asyncio.timeout(idle_timeout_s):
            message = await socket.receive()
    except TimeoutError:
        detail = f"Nothing has come for {idle_timeout_s:g} s."
        raise Problem("body-timeout", detail, limit=idle_timeout_s, unit="s") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text: str | None = message.get("text")
    return text if text is not None else message["bytes"]


async def _send(socket: WebSocket, answers: list[Members], idle_timeout_s: float) -> None:
    try:
        async with asyncio.timeout(idle_timeout_s):
            for members in answers:
                body = orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)
                await socket.send_text(body.decode())
    except TimeoutError:
        raise WebSocketDisconnect(1006, "the client takes nothing") from None
