"""A live stream over a WebSocket: PCM as it is recorded -> vectors and labels, every hop.

The client sends a configuration as JSON, then PCM in binary messages of any length, then
`{"end": true}`. A socket takes a place among the streams when its first audio comes, and has to go
on sending audio; one that says nothing is closed. Letters: `S` samples.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from functools import partial
from time import monotonic
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from models.audio import Resampler
from models.runtime import Floats
from models.tiles import checked
from service.context import Context
from service.dimensions import check_dimensions
from service.errors import validation_problem
from service.formats.json_body import refuse_twice
from service.inference.catalogue import Catalogue
from service.inference.windowing import Windowing
from service.parameters import (
    Dimensions,
    EmbeddingParameters,
    JsonParameters,
    Parameters,
    PredictionParameters,
    Seconds,
    TopK,
)
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
PATIENCE_PER_AUDIO = 10  # seconds of patience that a second of audio gives back

_DTYPES: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}


class LiveConfig(JsonParameters):
    """The first message: what comes, and what is wanted."""

    sample_rate: int = Field(ge=8_000, le=48_000, description="Hz of what comes.")
    encoding: Literal["s16le", "f32le"] = Field(
        default="s16le", description="Mono samples: 16-bit integers, or floats in [-1, 1]."
    )
    model: str | None = Field(
        default=None, max_length=128, description="An id from `GET /v1/models`; else the default."
    )
    head: str | None = Field(
        default=None,
        max_length=128,
        description="A classifier's id; its labels then come beside each vector.",
    )
    window_s: Seconds = Field(default=1.0, le=60, description="Seconds of a window.")
    hop_s: Seconds | None = Field(
        default=None, description="Seconds from one window's start to the next; else `window_s`."
    )
    output: Literal["json", "base64"] = Field(
        default="json", description="Vectors as numbers, or as little-endian float32 in base64."
    )
    dimensions: Dimensions | None = Field(
        default=None, description="So many values of each vector, the first, at length 1."
    )
    top_k: TopK = Field(default=5, description="How many labels, the best of them.")


class _End(Parameters):
    """The last message."""

    end: Literal[True]


async def serve_stream(socket: WebSocket, shared: Context) -> None:
    """Serve one accepted socket until the client has ended its stream.

    Raises:
        Problem, ServiceError, AudioError: for whatever is wrong; the socket is still open then.
        WebSocketDisconnect: the client has gone.
    """
    settings = shared.settings
    config = _config(await _Listener(socket, settings.head_timeout_s, "configuration").receive())
    named = [config.head] if config.head else []
    catalogue = await shared.catalogue_of(socket.state.caller, named)
    plan = _plan(catalogue, config)
    await _send(socket, [plan.opening], settings.idle_timeout_s)
    spend = partial(shared.spend, socket.state.caller)
    with ExitStack() as place:
        async with (
            aclosing(_blocks(socket, config, shared, place)) as blocks,
            aclosing(answers(shared.engine.batcher, plan, blocks, spend)) as some,
        ):
            async for members in some:
                await _send(socket, members, settings.idle_timeout_s)


def _config(message: str | bytes) -> LiveConfig:
    if isinstance(message, bytes):
        raise Problem("bad-request", "The first message is text: the configuration as JSON.")
    try:
        config = LiveConfig.model_validate_json(message)
    except ValidationError as error:
        raise validation_problem(error.errors()) from None
    refuse_twice(message)
    return config


def _plan(catalogue: Catalogue, config: LiveConfig) -> Plan:
    """The plan of a live stream: as for a file, in tiles of one hop, so that no answer is late."""
    model = catalogue.model_for(config.model, config.head)
    check_dimensions(config.dimensions, model.network.card)
    windowing = Windowing.of(config.window_s, config.hop_s, model.network.card)
    assert windowing is not None
    windowing = windowing.in_frames()
    hop_frames = windowing.grid.hop // model.network.card.frame_hop
    return Plan(model, "embedding", windowing, _described(catalogue, config), hop_frames)


def _described(catalogue: Catalogue, config: LiveConfig) -> Describe:
    vectors = describe_vectors(
        EmbeddingParameters(output=config.output, dimensions=config.dimensions)
    )
    if config.head is None:
        return vectors
    asked = PredictionParameters(top_k=config.top_k)
    labels = describe_predictions([catalogue.classifier(config.head)], asked)

    def both(rows: Floats) -> list[Members]:
        return [a | b for a, b in zip(vectors(rows), labels(rows), strict=True)]

    return both


async def _blocks(
    socket: WebSocket, config: LiveConfig, shared: Context, place: ExitStack
) -> AsyncGenerator[Floats, None]:
    """Samples (S,) at 16 kHz; the next message is taken once this one has been dealt with.

    With the first of them the stream takes its `place`.
    """
    settings, dtype = shared.settings, _DTYPES[config.encoding]
    listener = _Listener(socket, settings.idle_timeout_s, "audio")
    resampler, n_samples, rest = Resampler(config.sample_rate), 0, b""
    while isinstance(message := await listener.receive(), bytes):
        _check_message(message)
        pcm, rest = _whole_samples(rest + message, dtype)
        if not pcm:
            continue
        if not n_samples:
            place.enter_context(shared.live.slot())
        n_samples += len(pcm) // dtype.itemsize
        listener.heard(len(pcm) / dtype.itemsize / config.sample_rate)
        _check_duration(n_samples / config.sample_rate, settings.max_stream_duration_s)
        yield await asyncio.to_thread(_samples, pcm, dtype, resampler)
    _check_end(message, len(rest), dtype)
    yield resampler.rest()


def _whole_samples(pcm: bytes, dtype: np.dtype[Any]) -> tuple[bytes, bytes]:
    """Whole samples, and the bytes of one that the next message completes."""
    n_bytes = len(pcm) - len(pcm) % dtype.itemsize
    return pcm[:n_bytes], pcm[n_bytes:]


def _check_end(message: str, n_rest: int, dtype: np.dtype[Any]) -> None:
    try:
        _End.model_validate_json(message)
    except ValidationError:
        detail = 'After the configuration the only text is {"end": true}.'
        raise Problem("bad-request", detail) from None
    refuse_twice(message)
    if n_rest:
        detail = f"The stream ends after {n_rest} bytes of a sample that has {dtype.itemsize}."
        raise Problem("bad-request", detail)


def _samples(message: bytes, dtype: np.dtype[Any], resampler: Resampler) -> Floats:
    """PCM -> floats in [-1, 1) -> samples (S,) at 16 kHz."""
    pcm: NDArray[Any] = np.frombuffer(message, dtype)
    scale = np.float32(2.0**-15 if dtype.kind == "i" else 1.0)
    with np.errstate(invalid="ignore"):  # a signalling NaN is refused below, and no line of the log
        samples = pcm.astype(np.float32) * scale
    return resampler.add(checked(samples))


def _check_message(message: bytes) -> None:
    if len(message) > MAX_MESSAGE_BYTES:
        raise Problem(
            "body-too-large",
            f"A message of {len(message)} bytes; at most {MAX_MESSAGE_BYTES} are accepted.",
            limit=MAX_MESSAGE_BYTES,
            observed=len(message),
            unit="bytes",
        )


def _check_duration(seconds: float, limit: float) -> None:
    if seconds > limit:
        raise Problem(
            "too-long",
            f"{seconds:.2f} s of audio exceed the limit of {limit:g} s for a stream.",
            limit=limit,
            observed=seconds,
            unit="s",
        )


class _Listener:
    """Receives messages, and gives up a client that sends too little audio.

    It may be waited for `patience_s` without any audio. Waiting uses that up, audio gives it back,
    ten times as much as it lasts: neither empty messages nor a sample now and then keep a socket.

    Args:
        socket: where messages come from.
        patience_s: seconds that may be waited.
        awaited: what for, in the words of the refusal.
    """

    def __init__(self, socket: WebSocket, patience_s: float, awaited: str) -> None:
        self._socket, self._awaited = socket, awaited
        self._patience_s = self._left_s = patience_s

    def heard(self, audio_s: float) -> None:
        """Give back patience for audio that has come."""
        self._left_s = min(self._patience_s, self._left_s + PATIENCE_PER_AUDIO * audio_s)

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            Problem: too little has come for too long.
            WebSocketDisconnect: the client has gone.
        """
        started = monotonic()
        try:
            async with asyncio.timeout(self._left_s):
                message = await self._socket.receive()
        except TimeoutError:
            detail = f"Too little {self._awaited} has come for {self._patience_s:g} s."
            limit = self._patience_s
            raise Problem("body-timeout", detail, limit=limit, unit="s") from None
        self._left_s -= monotonic() - started
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
