"""Files -> vectors in three steps: `prepare` decodes, `run` infers, `finish` checks what came out.

Only `run` touches ONNX Runtime, through the batcher. A file that fails becomes the Problem in its
place and stops no other. Letters: `S` samples, `D` embedding dim, `N` windows, `B` files.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE, WHOLE, AudioError, Selection
from models.inputs import cut
from models.modelfile import Card
from models.quality import Quality
from models.runtime import Encoder, Floats, Windows
from models.tiles import Tile, checked
from models.windows import Pool, Timed, Timeline
from service.audio.decoder import Decoder
from service.audio.uploads import Upload
from service.errors import audio_problem
from service.inference.batcher import RECORDING_TILE_S, TILES_AHEAD, Batcher, Turn
from service.inference.lane import Lane
from service.inference.watchdog import Pulse
from service.problems import Problem, invalid_parameter
from service.traffic.budget import Costs, Share
from service.traffic.patience import in_thread

T = TypeVar("T")

log = structlog.get_logger()

MIN_DURATION_S = 0.025  # what the recording must hold; one analysis frame of 25 ms
MAX_OVERLAP = 16  # windows that may cover one instant: it multiplies the work of a request


@dataclass(frozen=True)
class Clip:
    """A decoded file: mono samples at 16 kHz (S,), and its quality if that was asked for.

    `start_s` is where in its recording it begins.
    """

    samples: NDArray[np.float32]
    quality: Quality | None = None
    warnings: Sequence[str] = ()
    start_s: float = 0.0

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
    warnings: Sequence[str] = ()


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

    def timeline(self, encoder: Encoder) -> Timeline:
        """Takes the frames of a recording and gives these windows."""
        return encoder.timeline(self.window_s, self.hop_s)

    def count(self, duration_s: float) -> int:
        """How many windows a recording has at most, both lengths being rounded to whole frames."""
        window, hop = round(self.window_s / self.frame_s), round(self.hop_s / self.frame_s)
        return 1 + math.ceil(max(0.0, duration_s / self.frame_s - window) / hop)


class Engine:
    """The three steps, and where they take place."""

    def __init__(
        self,
        decoder: Decoder,
        batcher: Batcher,
        *,
        max_request_duration_s: float,
        max_windows: int,
    ) -> None:
        self.decoder, self.batcher = decoder, batcher
        self.max_request_duration_s = max_request_duration_s
        self.max_windows = max_windows
        self._heads = Lane("classifiers")

    async def prepare(
        self,
        uploads: Sequence[Upload],
        costs: Costs,
        selection: Selection = WHOLE,
        *,
        measured: bool = False,
    ) -> list[Clip | Problem]:
        """Decode one file after the other, so that a request of many takes one place at a time.

        Each upload is forgotten once its samples are there.
        """
        prepared: list[Clip | Problem] = []
        total_s = 0.0
        for upload in uploads:
            item = await self._prepare_one(upload, costs, total_s, selection, measured)
            if not isinstance(upload.data, np.ndarray):
                costs.share.give(min(costs.share.held, upload.n_bytes))
            upload.forget()
            prepared.append(item)
            if isinstance(item, Clip):
                total_s += item.duration_s
            else:
                log.info("file refused", problem=item.kind.slug, file_index=len(prepared) - 1)
        return prepared

    async def _prepare_one(
        self,
        upload: Upload,
        costs: Costs,
        before_s: float,
        selection: Selection,
        measured: bool,
    ) -> Clip | Problem:
        try:
            if isinstance(upload.data, np.ndarray):
                clip = await in_thread(self._trusted, upload.data)
                costs.spend(clip.duration_s)
            else:
                decoded = await self.decoder.read(upload.data, costs, selection, measured=measured)
                clip = Clip(decoded.samples, decoded.quality, decoded.warnings, selection.start_s)
        except AudioError as error:
            return audio_problem(error)
        except Problem as problem:
            return problem
        return self.duration_problem(clip.duration_s, before_s) or clip

    def _trusted(self, samples: Floats) -> Clip:
        """Samples (S,) that need no decoding, checked as decoded ones are.

        Raises:
            AudioError: they are no audio, or too much of it.
        """
        clip, limit = Clip(checked(samples)), self.decoder.limits.max_duration_s
        if limit is not None and clip.duration_s > limit:
            message = f"{clip.duration_s:.2f} s of audio exceed the limit of {limit:g} s"
            raise AudioError("duration", message, limit, clip.duration_s, "s")
        return clip

    async def run(
        self,
        encoder: Encoder,
        prepared: Sequence[Clip | Problem],
        windowing: Windowing | None,
        share: Share | None = None,
    ) -> list[Embedded | Problem]:
        """Embed the clips among `prepared`; problems stay where they are.

        Args:
            encoder: computes the vectors.
            prepared: the clips.
            windowing: asks for windows, whose vectors are taken into the share.
            share: what the request holds in memory.

        Raises:
            Problem: there are too many windows, or memory is full.
        """
        clips = [clip for clip in prepared if isinstance(clip, Clip)]
        if windowing:
            n_windows = sum(windowing.count(clip.duration_s) for clip in clips)
            if problem := self.windows_problem(n_windows):
                raise problem
            if share:
                await share.take(n_windows * encoder.card.embed_dim * 4)
        embedded = iter(await self._embed(encoder, clips, windowing))
        return [next(embedded) if isinstance(item, Clip) else item for item in prepared]

    async def infer(self, work: Callable[[], T]) -> T:
        """Let a classifier do its small work, one at a time, off the event loop."""
        with self.pulse.beat():
            return await self._heads.run(work)

    @property
    def pulse(self) -> Pulse:
        """Whether what is asked for is also done."""
        return self.batcher.pulse

    def close(self) -> None:
        """Let what runs finish and drop what waits."""
        self.decoder.close()
        self.batcher.close()
        self._heads.close()

    async def _embed(
        self, encoder: Encoder, clips: Sequence[Clip], windowing: Windowing | None
    ) -> list[Embedded | Problem]:
        """A few clips at a time, so that the queue holds little of any one request."""
        turn = Turn()
        embedded: list[Embedded | Problem] = []
        for some in _handfuls(clips, TILES_AHEAD * encoder.tiling.tile_samples):
            embedded += await asyncio.gather(
                *(self._embed_one(turn, encoder, clip, windowing) for clip in some)
            )
        return embedded

    async def _embed_one(
        self, turn: Turn, encoder: Encoder, clip: Clip, windowing: Windowing | None
    ) -> Embedded | Problem:
        try:
            if windowing is None and len(clip.samples) <= encoder.tiling.tile_samples:
                vector = await self.batcher.run(turn, encoder, "embedding", clip.samples)
                return finish(clip, vector, None)
            return await self._embed_tiles(turn, encoder, clip, windowing)
        except Problem as problem:
            return problem

    async def _embed_tiles(
        self, turn: Turn, encoder: Encoder, clip: Clip, windowing: Windowing | None
    ) -> Embedded | Problem:
        """A clip whose frames are pooled here: it is long, or windows are asked for."""
        timeline = windowing.timeline(encoder) if windowing else None
        n_windows = windowing.count(clip.duration_s) if windowing else 0
        whole, windows = encoder.pool(), _Collected(n_windows, encoder.card.embed_dim)
        new_frames = encoder.tiling.new_frames(RECORDING_TILE_S)
        tiles = _each(encoder.tiling.cut(cut(clip.samples), new_frames))
        async with aclosing(self.batcher.frames(turn, encoder, tiles)) as parts:
            async for frames in parts:
                windows.add(await in_thread(pooled, frames, whole, timeline))
        if timeline is None:
            return finish(clip, whole.embedding(), None)
        windows.add(timeline.rest())
        return finish(clip, whole.embedding(), windows.all(whole.embedding(), clip.start_s))

    def duration_problem(self, duration_s: float, before_s: float) -> Problem | None:
        """What is wrong with a recording so long, after `before_s` in the same request."""
        if problem := too_short(duration_s):
            return problem
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


class _Collected:
    """Windows of a recording as they come, in one array of vectors (N, D) from the start."""

    def __init__(self, most: int, embed_dim: int) -> None:
        self._times: list[tuple[float, float]] = []
        self._vectors = np.empty((most + 1, embed_dim), np.float32)  # one more by rounding

    def add(self, timed: Sequence[Timed]) -> None:
        for start_s, end_s, vector in timed:
            self._vectors[len(self._times)] = vector
            self._times.append((start_s, end_s))

    def all(self, whole: Floats, begin_s: float) -> Windows:
        start_s, end_s = np.array(self._times).T + begin_s
        return Windows(start_s, end_s, self._vectors[: len(self._times)], whole)


def _handfuls(clips: Sequence[Clip], max_samples: int) -> list[list[Clip]]:
    """Clips in a row with at most so many samples together; a longer one is alone."""
    some: list[list[Clip]] = []
    n_samples = max_samples
    for clip in clips:
        if n_samples + len(clip.samples) > max_samples:
            some.append([])
            n_samples = 0
        some[-1].append(clip)
        n_samples += len(clip.samples)
    return some


async def _each(tiles: Iterable[Tile]) -> AsyncIterator[Tile]:
    for tile in tiles:
        yield tile


def pooled(frames: Floats, whole: Pool, timeline: Timeline | None) -> list[Timed]:
    """Take the next frames of a recording (T, D) into its vector; the windows they complete."""
    whole.add(frames)
    return [] if timeline is None else timeline.add(frames)


def too_short(duration_s: float) -> Problem | None:
    """What is wrong with a recording of this length, if anything is."""
    if duration_s >= MIN_DURATION_S:
        return None
    return Problem(
        "too-short",
        f"The recording lasts {duration_s * 1000:.1f} ms; "
        f"at least {MIN_DURATION_S * 1000:g} ms are needed.",
        limit=MIN_DURATION_S,
        observed=duration_s,
        unit="s",
    )


def finish(
    clip: Clip, embedding: NDArray[np.float32], windows: Windows | None
) -> Embedded | Problem:
    """Refuse vectors that are not numbers: JSON cannot hold them and an index would be poisoned."""
    vectors = [embedding] if windows is None else [embedding, windows.embedding]
    # NaN and infinity carry through; an array of truth values would be a quarter of the vectors
    if not all(np.isfinite([vector.max(), vector.min()]).all() for vector in vectors):
        return Problem("internal", "The model's answer for this file is not finite.")
    return Embedded(clip.duration_s, embedding, windows, clip.quality, clip.warnings)
