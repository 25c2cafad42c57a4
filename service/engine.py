"""Files -> vectors in three steps: `prepare` decodes, `run` infers, `finish` checks what came out.

Only `run` touches ONNX Runtime. A file that fails becomes the Problem in its place and stops no
other. Letters: `S` samples, `D` embedding dim, `N` windows, `B` files.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE, AudioError
from models.modelfile import Card
from models.quality import Quality
from models.runtime import Encoder, Windows
from service.decoder import Decoder
from service.errors import audio_problem
from service.problems import Problem, invalid_parameter
from service.uploads import Upload
from service.watchdog import Pulse

T = TypeVar("T")

log = structlog.get_logger()

MIN_DURATION_S = 0.025  # what the recording must hold; one analysis frame of 25 ms
MAX_OVERLAP = 16  # windows that may cover one instant: it multiplies the work of a request


@dataclass(frozen=True)
class Clip:
    """A decoded file: mono samples at 16 kHz (S,), and its quality if that was asked for."""

    samples: NDArray[np.float32]
    quality: Quality | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Embedded:
    """A file's vector (D,), and those of its windows (N, D) if they were asked for."""

    duration_s: float
    embedding: NDArray[np.float32]
    windows: Windows | None = None
    quality: Quality | None = None


@dataclass(frozen=True)
class Windowing:
    """Windows of `window_s` that start every `hop_s`, on a model's grid of `frame_s`."""

    window_s: float
    hop_s: float
    frame_s: float

    @classmethod
    def of(cls, window_s: float | None, hop_s: float | None, card: Card) -> "Windowing | None":
        """What a request's two parameters mean together; no hop means windows side by side.

        Raises:
            Problem: for a combination that makes no sense.
        """
        if window_s is None:
            if hop_s is not None:
                reason = "hop_s needs window_s: it is the step from one window to the next."
                raise invalid_parameter("hop_s", reason, value=hop_s)
            return None
        hop_s = window_s if hop_s is None else hop_s
        frame_s = card.frame_hop / SAMPLE_RATE
        for name, value in (("window_s", window_s), ("hop_s", hop_s)):
            if value < frame_s:
                reason = (
                    f"{name} = {value:g} is below one frame of {card.name}: at least {frame_s:g}."
                )
                raise invalid_parameter(name, reason, value=value, limit=frame_s)
        if hop_s > window_s:
            reason = f"hop_s = {hop_s:g} would skip audio: at most window_s = {window_s:g}."
            raise invalid_parameter("hop_s", reason, value=hop_s, limit=window_s)
        if hop_s * MAX_OVERLAP < window_s:
            shortest = window_s / MAX_OVERLAP
            reason = (
                f"hop_s = {hop_s:g} is too short: at least window_s / {MAX_OVERLAP} = {shortest:g}."
            )
            raise invalid_parameter("hop_s", reason, value=hop_s, limit=shortest)
        return cls(window_s, hop_s, frame_s)

    def count(self, duration_s: float) -> int:
        """How many windows a recording has at most, both lengths being rounded to whole frames."""
        window, hop = round(self.window_s / self.frame_s), round(self.hop_s / self.frame_s)
        return 1 + math.ceil(max(0.0, duration_s / self.frame_s - window) / hop)


class Engine:
    """The three steps and the threads that they take place in."""

    def __init__(
        self, decoder: Decoder, *, max_request_duration_s: float, max_windows: int
    ) -> None:
        self.decoder = decoder
        self.max_request_duration_s = max_request_duration_s
        self.max_windows = max_windows
        self.pulse = Pulse()
        # One at a time: ONNX Runtime spreads a single inference over all its threads
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="inference")

    async def prepare(
        self, uploads: Sequence[Upload], *, measured: bool = False
    ) -> list[Clip | Problem]:
        """Decode one file after the other, so that a request of many takes one place at a time."""
        prepared: list[Clip | Problem] = []
        total_s = 0.0
        for upload in uploads:
            item = await self._prepare_one(upload, total_s, measured)
            prepared.append(item)
            if isinstance(item, Clip):
                total_s += item.duration_s
            else:
                log.info("file refused", problem=item.kind.slug, file_index=len(prepared) - 1)
        return prepared

    async def _prepare_one(self, upload: Upload, before_s: float, measured: bool) -> Clip | Problem:
        try:
            if measured:
                clip = Clip(*await self.decoder.measure(upload.data))
            else:
                clip = Clip(await self.decoder.decode(upload.data))
        except AudioError as error:
            return audio_problem(error)
        except Problem as problem:
            return problem
        return self.duration_problem(clip.duration_s, before_s) or clip

    async def run(
        self, encoder: Encoder, prepared: Sequence[Clip | Problem], windowing: Windowing | None
    ) -> list[Embedded | Problem]:
        """Embed the clips among `prepared`; problems stay where they are."""
        clips = [clip for clip in prepared if isinstance(clip, Clip)]
        if windowing:
            n_windows = sum(windowing.count(clip.duration_s) for clip in clips)
            if problem := self.windows_problem(n_windows):
                raise problem
        embedded = iter(await self.infer(partial(_embed, encoder, clips, windowing)))
        return [next(embedded) if isinstance(item, Clip) else item for item in prepared]

    async def infer(self, work: Callable[[], T]) -> T:
        """Do what needs ONNX Runtime in its turn, off the event loop."""
        with self.pulse.beat():
            return await asyncio.get_running_loop().run_in_executor(self._inference, work)

    def close(self) -> None:
        """Let what runs finish and drop what waits."""
        self.decoder.close()
        self._inference.shutdown(cancel_futures=True)

    def duration_problem(self, duration_s: float, before_s: float) -> Problem | None:
        """What is wrong with a recording so long, after `before_s` in the same request."""
        if duration_s < MIN_DURATION_S:
            return Problem(
                "too-short",
                f"The recording lasts {duration_s * 1000:.1f} ms; "
                f"at least {MIN_DURATION_S * 1000:g} ms are needed.",
                limit=MIN_DURATION_S,
                observed=duration_s,
                unit="s",
            )
        if before_s + duration_s > self.max_request_duration_s:
            return Problem(
                "request-too-long",
                f"With this file the request holds {before_s + duration_s:.2f} s of audio; "
                f"at most {self.max_request_duration_s:g} s are accepted.",
                limit=self.max_request_duration_s,
                observed=before_s + duration_s,
                unit="s",
            )
        return None

    def windows_problem(self, n_windows: int) -> Problem | None:
        """What is wrong with so many windows in one request."""
        if n_windows > self.max_windows:
            return Problem(
                "too-many-windows",
                f"The request asks for {n_windows} windows; at most {self.max_windows} are "
                "accepted: choose a longer hop_s, or send less audio.",
                limit=self.max_windows,
                observed=n_windows,
                unit="windows",
                param="hop_s",
            )
        return None


def _embed(
    encoder: Encoder, clips: Sequence[Clip], windowing: Windowing | None
) -> list[Embedded | Problem]:
    """The blocking half of `run`."""
    if windowing is None:
        vectors = encoder.embed_batch([clip.samples for clip in clips])  # (B, D)
        return [finish(clip, vector, None) for clip, vector in zip(clips, vectors, strict=True)]
    timed = [encoder.windows(c.samples, windowing.window_s, windowing.hop_s) for c in clips]
    return [finish(c, windows.whole, windows) for c, windows in zip(clips, timed, strict=True)]


def finish(
    clip: Clip, embedding: NDArray[np.float32], windows: Windows | None
) -> Embedded | Problem:
    """Refuse vectors that are not numbers: JSON cannot hold them and an index would be poisoned."""
    vectors = [embedding] if windows is None else [embedding, windows.embedding]
    if not all(np.isfinite(vector).all() for vector in vectors):
        return Problem("internal", "The model's answer for this file is not finite.")
    return Embedded(clip.duration_s, embedding, windows, clip.quality)
