"""Files -> vectors in three steps: `prepare` decodes, `run` infers, `finish` checks what came out.

Only `run` touches ONNX Runtime, through the batcher. A file that fails leaves its error in its
place in the list and stops no other file. How one request goes through the service:

    routes/embeddings.py          the parameters of the query are read and checked
    exchange.py                   a place among the requests in hand, and a deadline
    uploads/body.py               "receive": the form or the body, in the request's share of memory
    engine.prepare                "decode": one file after the other
      audio/decoder.py              a child process for each file, its time and memory limited
      audio/decode_child.py         that process: bytes -> samples at 16 kHz; audio/forks.py has it
                                    forked where one is missing
    engine.run                    "infer": clips as they are, longer recordings in tiles
      inference/batcher.py          tiles and clips of all requests, batched by length and due time
      inference/worker.py           a thread in which ONNX Runtime computes one batch
    engine.finish                 vectors that are not numbers are refused
    formats/answers.py            "render": JSON, or the table of one of outputs/
    errors.py                     whatever failed on the way -> application/problem+json

Classifications add inference/scoring.py before the rendering; streams (streams/lines.py, live.py)
go from blocks of samples straight to the batcher.

Letters: `S` samples, `D` embedding dim, `N` windows, `B` files.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models import modelfile
from models.inputs import cut
from models.limits import AudioError
from models.runtime import Encoder, Floats, Windows
from models.selection import WHOLE, Selection
from models.tiles import Tile, checked
from models.windows import Pool, Timed, Timeline
from service.audio.decode_child import silent_file
from service.audio.decoder import Decoder
from service.audio.files import Upload
from service.clips import Clip, Embedded
from service.exceptions import Failure, ServiceError
from service.inference.batcher import RECORDING_TILE_S, TILES_AHEAD, Batcher, Deadlines
from service.inference.catalogue import Served
from service.inference.watchdog import Heartbeat
from service.inference.windowing import Windowing
from service.inference.worker import Worker
from service.threads import in_thread
from service.traffic.budget import Costs, Share

T = TypeVar("T")

MIN_DURATION_S = 0.025  # what the recording must hold; one analysis frame of 25 ms


class Engine:
    """The three steps, with the processes and threads that they run in."""

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
        self._classifiers = Worker("classifiers")

    async def prepare(
        self,
        uploads: Sequence[Upload],
        costs: Costs,
        selection: Selection = WHOLE,
        *,
        measured: bool = False,
    ) -> list[Clip | Failure]:
        """Decode the files one after the other: a request of many takes one decoder at a time.

        The bytes of each upload are released once its samples are there.
        """
        prepared: list[Clip | Failure] = []
        total_s = 0.0
        for upload in uploads:
            item = await self._prepare_one(upload, costs, total_s, selection, measured)
            if not isinstance(upload.data, np.ndarray):
                costs.share.give(min(costs.share.held, upload.n_bytes))
            upload.forget()
            prepared.append(item)
            if isinstance(item, Clip):
                total_s += item.duration_s
        return prepared

    async def _prepare_one(
        self,
        upload: Upload,
        costs: Costs,
        before_s: float,
        selection: Selection,
        measured: bool,
    ) -> Clip | Failure:
        try:
            if isinstance(upload.data, np.ndarray):
                clip = await in_thread(self._trusted, upload.data)
                costs.spend(clip.duration_s)
            else:
                decoded = await self.decoder.read(upload.data, costs, selection, measured=measured)
                clip = Clip(decoded.samples, decoded.quality, decoded.warnings, selection.start_s)
        except (AudioError, ServiceError) as error:
            return error
        return self.duration_error(clip.duration_s, before_s) or clip

    def _trusted(self, samples: Floats) -> Clip:
        """A clip of samples (S,) that came as such, checked as decoded ones are.

        Raises:
            AudioError: they are not audio, or last too long.
        """
        clip, limit = Clip(checked(samples)), self.decoder.limits.max_duration_s
        if limit is not None and clip.duration_s > limit:
            message = f"{clip.duration_s:.2f} s of audio exceed the limit of {limit:g} s"
            raise AudioError("duration", message, limit, clip.duration_s, "s")
        return clip

    async def run(
        self,
        encoder: Encoder,
        prepared: Sequence[Clip | Failure],
        windowing: Windowing | None,
        share: Share | None = None,
    ) -> list[Embedded | Failure]:
        """Embed the clips among `prepared`; failures stay where they are.

        Args:
            encoder: computes the vectors.
            prepared: the clips, or why a file is none.
            windowing: the windows to embed besides the whole clip, if any.
            share: what the request holds in memory; the windows' vectors are added to it.

        Raises:
            ServiceError: there are too many windows, or memory is full.
        """
        clips = [clip for clip in prepared if isinstance(clip, Clip)]
        if windowing:
            n_windows = sum(windowing.count(len(clip.samples)) for clip in clips)
            if error := self.windows_error(n_windows):
                raise error
            if share:
                await share.take(n_windows * encoder.card.embed_dim * 4)
        embedded = iter(await self._embed(encoder, clips, windowing))
        return [next(embedded) if isinstance(item, Clip) else item for item in prepared]

    async def infer(self, work: Callable[[], T]) -> T:
        """Run a classifier's computation in its own thread, one at a time."""
        with self.heartbeat.awaited():
            return await self._classifiers.run(work)

    @property
    def heartbeat(self) -> Heartbeat:
        """When inference was last asked for, and when it last finished something."""
        return self.batcher.heartbeat

    async def probe(self, models: Iterable[Served[Encoder]]) -> None:
        """Decode a file and compute every golden vector, through the queues that requests wait in.

        Raises:
            AudioError, ServiceError: decoding fails, or a vector is not finite.
            ModelFileError: a model no longer computes what its card says.
        """
        await self.decoder.read(silent_file())
        reference = Clip(modelfile.reference_signal())
        for model in models:
            (outcome,) = await self.run(model.network, [reference], None)
            if not isinstance(outcome, Embedded):
                raise outcome
            modelfile.golden_error(model.network.card, outcome.embedding)

    def close(self) -> None:
        """Let what runs finish and drop what waits."""
        self.decoder.close()
        self.batcher.close()
        self._classifiers.close()

    async def _embed(
        self, encoder: Encoder, clips: Sequence[Clip], windowing: Windowing | None
    ) -> list[Embedded | Failure]:
        """Embed a few clips at a time, so that the queue holds little of any one request."""
        deadlines = Deadlines()
        embedded: list[Embedded | Failure] = []
        for some in _handfuls(clips, TILES_AHEAD * encoder.tiling.tile_samples):
            embedded += await asyncio.gather(
                *(self._embed_one(deadlines, encoder, clip, windowing) for clip in some)
            )
        return embedded

    async def _embed_one(
        self, deadlines: Deadlines, encoder: Encoder, clip: Clip, windowing: Windowing | None
    ) -> Embedded | Failure:
        try:
            only = windowing.only(encoder, len(clip.samples)) if windowing else None
            fits_a_tile = len(clip.samples) <= encoder.tiling.tile_samples
            is_one_vector = fits_a_tile if windowing is None else only is not None
            if not is_one_vector:
                return await self._embed_tiles(deadlines, encoder, clip, windowing)
            vector = await self.batcher.run(deadlines, encoder, "embedding", clip.samples)
            windows = Windows.of([(*only, vector)], vector, clip.start_s) if only else None
            return finish(clip, vector, windows)
        except ServiceError as error:
            return error

    async def _embed_tiles(
        self, deadlines: Deadlines, encoder: Encoder, clip: Clip, windowing: Windowing | None
    ) -> Embedded | Failure:
        """Embed a clip tile by tile and pool its frames: it is long, or has several windows."""
        timeline = windowing.timeline(encoder) if windowing else None
        n_samples = len(clip.samples)
        n_windows = windowing.count(n_samples) if windowing else 0
        whole, windows = encoder.pool(), _Collected(n_windows, encoder.card.embed_dim)
        new_frames = encoder.tiling.new_frames(RECORDING_TILE_S)
        tiles = _each(encoder.tiling.cut(cut(clip.samples), new_frames))
        async with aclosing(self.batcher.frames(deadlines, encoder, tiles)) as parts:
            async for frames in parts:
                windows.add(await in_thread(pooled, frames, n_samples, whole, timeline))
        vector, rest = await in_thread(ended, whole, timeline)
        windows.add(rest)
        timed = None if timeline is None else windows.all(vector, clip.start_s)
        return finish(clip, vector, timed)

    def duration_error(self, duration_s: float, before_s: float) -> ServiceError | None:
        """The error of a recording that is too short, or too long; None if it is neither.

        `before_s` is the length of the recordings before it in the same request.
        """
        if error := too_short(duration_s):
            return error
        if before_s + duration_s > self.max_request_duration_s:
            return ServiceError(
                "request-too-long",
                f"With this file the request holds {before_s + duration_s:.2f} s of audio; "
                f"at most {self.max_request_duration_s:g} s are accepted.",
                limit=self.max_request_duration_s,
                observed=before_s + duration_s,
                unit="s",
            )
        return None

    def windows_error(self, n_windows: int) -> ServiceError | None:
        """The error of a request for so many windows; None if they are within the limit."""
        if n_windows > self.max_windows:
            return ServiceError(
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
        self._vectors = np.empty((most, embed_dim), np.float32)

    def add(self, timed: Sequence[Timed]) -> None:
        for start_s, end_s, vector in timed:
            self._vectors[len(self._times)] = vector
            self._times.append((start_s, end_s))

    def all(self, whole: Floats, begin_s: float) -> Windows:
        start_s, end_s = np.array(self._times).T + begin_s
        return Windows(start_s, end_s, self._vectors[: len(self._times)], whole)


def _handfuls(clips: Sequence[Clip], max_samples: int) -> list[list[Clip]]:
    """Groups of clips with at most `max_samples` together; a longer clip is a group by itself."""
    groups: list[list[Clip]] = []
    n_samples = max_samples
    for clip in clips:
        if n_samples + len(clip.samples) > max_samples:
            groups.append([])
            n_samples = 0
        groups[-1].append(clip)
        n_samples += len(clip.samples)
    return groups


async def _each(tiles: Iterable[Tile]) -> AsyncIterator[Tile]:
    for tile in tiles:
        yield tile


def pooled(frames: Floats, n_samples: int, whole: Pool, timeline: Timeline | None) -> list[Timed]:
    """Add frames (T, D) to a recording's pool; returns the windows that they complete.

    `n_samples` of the recording are known so far.
    """
    whole.add(frames)
    return [] if timeline is None else timeline.add(frames, n_samples)


def ended(whole: Pool, timeline: Timeline | None) -> tuple[Floats, list[Timed]]:
    """The vector (D,) of a recording that has come to its end, and the window that ends there."""
    return whole.embedding(), [] if timeline is None else timeline.rest()


def too_short(duration_s: float) -> ServiceError | None:
    """The error of a recording that is too short; None if it is long enough."""
    if duration_s >= MIN_DURATION_S:
        return None
    return ServiceError(
        "too-short",
        f"The recording lasts {duration_s * 1000:.1f} ms; "
        f"at least {MIN_DURATION_S * 1000:g} ms are needed.",
        limit=MIN_DURATION_S,
        observed=duration_s,
        unit="s",
    )


def finish(
    clip: Clip, embedding: NDArray[np.float32], windows: Windows | None
) -> Embedded | Failure:
    """Refuse vectors that are not numbers: JSON cannot hold them and an index would be poisoned."""
    vectors = [embedding] if windows is None else [embedding, windows.embedding]
    # NaN and infinity carry through; an array of truth values would be a quarter of the vectors
    if not all(np.isfinite([vector.max(), vector.min()]).all() for vector in vectors):
        return ServiceError("internal", "The model's answer for this file is not finite.")
    return Embedded(clip.duration_s, embedding, windows, clip.quality, clip.warnings)
