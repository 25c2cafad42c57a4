"""Exact embedding of audio of any length on an ONNX Runtime session.

`models.tiles` cuts a recording into tiles that overlap; the frames of the tiles are, put together,
those of one pass over the whole, and maximum and sum merge across tiles, so that memory does not
grow with the recording. Clips of a like length share a batch. Batches have one of a fixed set of
shapes, so that the runtime's memory does not grow either.
Letters: `S` samples, `T` frames of features, `F` values of a frame before pooling, `D` embedding
dim, `N` clips or windows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Literal, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models import inputs, modelfile, shipped
from models.audio import SAMPLE_RATE
from models.card import Card
from models.inputs import Source
from models.limits import Limits
from models.machine import available_cpus
from models.modelfile import DEFAULT_MODEL, PROJECTION, ModelFileError
from models.reopen import Reopened
from models.selection import WHOLE, Selection
from models.tiles import Tile, Tiling, checked, groups
from models.windows import Grid, Pool, Pooling, Timed, Timeline, shortened

Floats = NDArray[np.float32]
Output = Literal["embedding", "frames", "log_mel"]
"""What a batch gives: vectors (N, D), frames (N, T, F), or log-mel (N, bands, T), the frames beyond
a row's end included."""

MAX_THREADS = 1024  # ONNX Runtime starts them at once, and fails where there are too many
PROVED_TILES = 4  # that the self-test cuts its signal into


@dataclass(frozen=True)
class Windows:
    """Timed vectors of a recording: start and end of each window (N,), vectors (N, D).

    `whole` is the vector of the recording (D,), from the same pass.
    """

    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    embedding: Floats
    whole: Floats

    @classmethod
    def of(cls, timed: Sequence[Timed], whole: Floats, begin_s: float = 0.0) -> Self:
        """Windows that came one by one, of what begins at `begin_s` of its recording."""
        start_s, end_s, embedding = zip(*timed, strict=True)
        starts, ends = np.array(start_s) + begin_s, np.array(end_s) + begin_s
        return cls(starts, ends, np.stack(embedding), whole)


class Encoder(Reopened):
    """A model file, ready to embed; safe to use from several threads, and may be pickled.

    Three steps that may also be taken one by one: `tiling` cuts, `run_batch` infers, `timeline`
    and `models.windows.Pool` pool.

    Example:
        `Encoder.open().embed("dog.wav")` is a vector of `card.embed_dim` float32
        values.
    """

    card: Card

    def __init__(self, session: ort.InferenceSession, card: Card) -> None:
        self.card = card
        self.tiling = Tiling(card)
        self._session = session
        self.pooling = self._pooling()

    @classmethod
    def open(cls, path: str | Path = DEFAULT_MODEL, *, threads: int | None = None) -> Self:
        """Open a model file, or by name one that ships; the default encoder if not given.

        Threads are as many as this process may use, if `threads` is None.

        Raises:
            ModelFileError: the file is missing, broken or not an encoder.
            ValueError: threads that are no number from 1 to `MAX_THREADS`.
        """
        if threads is not None and not (
            isinstance(threads, Integral) and 1 <= threads <= MAX_THREADS
        ):
            raise ValueError(f"threads is {threads!r}; expected 1 to {MAX_THREADS}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = available_cpus() if threads is None else int(threads)
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # patterns are kept for each shape ever seen
        options.log_severity_level = 3
        file = shipped.find(path)
        encoder = cls(*modelfile.open_session(file, options))
        encoder._open_again = partial(cls.open, file.absolute(), threads=threads)
        return encoder

    @property
    def gives_log_mel(self) -> bool:
        """Whether the file has the output `log_mel`."""
        return any(tensor.name == modelfile.LOG_MEL for tensor in self._session.get_outputs())

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where it computes; a runtime for GPUs goes to the CPU where it finds none."""
        return "cuda" if self._session.get_providers()[0] == modelfile.CUDA else "cpu"

    def embed(
        self,
        source: Source,
        limits: Limits = Limits(),
        dimensions: int | None = None,
        selection: Selection = WHOLE,
    ) -> Floats:
        """One vector of a whole recording, or of the part of it that is selected: -> (D,).

        Args:
            source: the recording: a path, a file's bytes, an open file, or samples (S,) at 16 kHz;
                see `models.inputs.Source`.
            limits: on what a file may hold.
            dimensions: how many values, the best first; see `models.windows.shortened`.
            selection: the part and the channel that are meant.

        Raises:
            AudioError: the recording is empty or cannot be decoded.
            ValueError: more dimensions than the model has.
        """
        tiles = self.tiling.cut(inputs.blocks(source, limits, selection))
        first = next(tiles)
        if first.stop is None:  # all of the recording: the graph pools it
            return shortened(self.embed_batch([first.samples])[0], dimensions)
        pool = self.pool()
        for tile in chain([first], tiles):
            pool.add(self._frames(tile))
        return shortened(pool.embedding(), dimensions)

    def embed_batch(self, clips: Sequence[Floats]) -> Floats:
        """One vector a clip, of any mixture of lengths: N times (S,) at 16 kHz -> (N, D)."""
        clips = [
            checked(clip if (found := inputs.samples(clip)) is None else found) for clip in clips
        ]
        embeddings = np.empty((len(clips), self.card.embed_dim), np.float32)
        buckets: dict[int, list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            if len(clip) > self.tiling.tile_samples:
                embeddings[index] = self.embed(clip)
            else:
                buckets[self.tiling.bucket(len(clip))].append(index)
        for bucket, indices in buckets.items():
            for group in groups(indices, self.tiling.max_rows(bucket)):
                batch = [clips[index] for index in group]
                embeddings[group] = self.run_batch("embedding", batch, bucket)
        return embeddings

    def frames(
        self, source: Source, limits: Limits = Limits(), selection: Selection = WHOLE
    ) -> Floats:
        """Frame features before pooling, one every `card.frame_hop` samples: -> (T, F)."""
        return np.concatenate(list(self.stream_frames(source, limits, selection)))

    def stream_frames(
        self, source: Source, limits: Limits = Limits(), selection: Selection = WHOLE
    ) -> Iterator[Floats]:
        """`frames` in parts (T, F) of bounded size, as they are computed."""
        yield from map(self._frames, self.tiling.cut(inputs.blocks(source, limits, selection)))

    def _frames(self, tile: Tile) -> Floats:
        """The frames (T, F) that a tile adds to its recording."""
        bucket = self.tiling.bucket(len(tile.samples))
        return self.tiling.own_frames(tile, self.run_batch("frames", [tile.samples], bucket)[0])

    def windows(
        self,
        source: Source,
        window_s: float,
        hop_s: float | None = None,
        limits: Limits = Limits(),
        selection: Selection = WHOLE,
    ) -> Windows:
        """Timed vectors and the vector of the whole, pooled from the frames of one pass.

        Windows start every `hop_s`, None: `window_s`, and none is shorter than a frame. A window
        is pooled from the frames whose middle lies in it; it sees its surroundings as far as a
        frame does. The last one ends with the recording: it is shorter than the others, or longer
        by less than two frames. One that spans the recording has the recording's vector. Times
        count from the beginning of the recording, of which a part may be selected.

        Raises:
            ValueError: a window or hop that is not above 0, or a hop longer than the window.
            AudioError: the recording is empty or cannot be decoded.
        """
        whole = self.pool()
        timed = list(self.stream_windows(source, window_s, hop_s, limits, whole, selection))
        return Windows.of(timed, whole.embedding())

    def stream_windows(
        self,
        source: Source,
        window_s: float,
        hop_s: float | None = None,
        limits: Limits = Limits(),
        whole: Pool | None = None,
        selection: Selection = WHOLE,
    ) -> Iterator[Timed]:
        """`windows` one by one, as they are complete: start and end in seconds, vector (D,)."""
        timeline, begin_s = self.timeline(window_s, hop_s), selection.start_s
        counted = inputs.Counted(inputs.blocks(source, limits, selection))
        for frames in map(self._frames, self.tiling.cut(counted)):
            if whole is not None:
                whole.add(frames)
            yield from _later(timeline.add(frames, counted.n_samples), begin_s)
        yield from _later(timeline.rest(), begin_s)

    def timeline(self, window_s: float, hop_s: float | None = None) -> Timeline:
        """Takes the frames of a recording and gives its windows; lengths as in `windows`.

        Raises:
            ValueError: a window or hop that is not above 0, or a hop longer than the window.
        """
        return Timeline(Grid.of(window_s, hop_s, self.card), self.pooling)

    def only_window(
        self, n_samples: int, window_s: float, hop_s: float | None = None
    ) -> tuple[float, float] | None:
        """Start and end in seconds of a clip's window, None where it has several or is no one tile.

        Its vector is the clip's, so that clips of one window can be embedded many at a time.

        Raises:
            ValueError: as `timeline`.
        """
        return self.only_window_of(Grid.of(window_s, hop_s, self.card), n_samples)

    def only_window_of(self, grid: Grid, n_samples: int) -> tuple[float, float] | None:
        """`only_window` of a grid that is there already."""
        if grid.count(n_samples) > 1 or n_samples > self.tiling.tile_samples:
            return None
        return 0.0, n_samples / SAMPLE_RATE

    def pool(self) -> Pool:
        """Takes the frames of a recording and gives its vector."""
        return Pool(self.pooling)

    def run_batch(self, output: Output, clips: Sequence[Floats], bucket: int) -> Floats:
        """Infer clips of at most `bucket` samples as one batch; see `Output`."""
        waveform = np.zeros((len(clips), bucket), np.float32)
        for row, clip in zip(waveform, clips, strict=True):
            row[: len(clip)] = clip
        length = np.array([len(clip) for clip in clips], np.int64)
        result: Floats = self._session.run([output], {"waveform": waveform, "length": length})[0]
        return result

    def _pooling(self) -> Pooling:
        """What the card says, with the projection that the file holds."""
        readout = self.card.readout
        if readout is None:
            return Pooling(self.card.pooled)
        shortest = np.zeros((1, self.card.min_samples), np.float32)
        inputs = {"waveform": shortest, "length": np.array([shortest.size], np.int64)}
        center, projection = self._session.run(list(PROJECTION), inputs)
        return Pooling(self.card.pooled, center, projection, readout.unit_length)

    def self_test(self) -> float:
        """Embed the reference signal: largest relative difference from the golden vector.

        As a whole, which the graph alone does, and in tiles, which are cut and pooled by what the
        card says.

        Raises:
            ModelFileError: this machine computes something else than the file says.
        """
        signal = modelfile.reference_signal()
        for n_samples in (len(signal) - 1, len(signal)):
            self._check_frames(signal[:n_samples])
        pool = self.pool()
        for tile in self.tiling.cut([signal], self.card.n_frames(len(signal)) // PROVED_TILES):
            pool.add(self._frames(tile))
        vectors = self.embed(signal), pool.embedding()
        return max(modelfile.golden_error(self.card, vector) for vector in vectors)

    def _check_frames(self, samples: Floats) -> None:
        """Refuse a card whose frames are not as many as the graph gives."""
        frames = self.run_batch("frames", [samples], len(samples))[0]
        found, stated = len(frames), self.card.n_frames(len(samples))
        if found != stated:
            raise ModelFileError(
                f"{self.card.name} gives {found} frames of {len(samples)} samples, by its card "
                f"{stated}: the card was changed, or the file is broken"
            )


def _later(timed: Iterable[Timed], by_s: float) -> Iterator[Timed]:
    return ((start_s + by_s, end_s + by_s, vector) for start_s, end_s, vector in timed)
