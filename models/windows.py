"""Pooling frames across tiles, for whole recordings and for timed windows, and the readout.

The graph pools what fits into one tile; this is the same pooling for what does not. Letters: `T`
frames of features, `P` pooled values, `D` embedding dim.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE
from models.card import Card, Statistic
from models.selection import MAX_TIME_S

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Timed = tuple[float, float, Floats]
"""Start and end of a window in seconds, and its vector (D,)."""


@dataclass(frozen=True)
class Pooling:
    """What is made of the frames of a recording or a window.

    Attributes:
        statistics: parts of the pooled vector.
        center: what is taken off it (P,); None: the pooled vector is the embedding.
        projection: what it is then multiplied by (P, D).
        unit_length: whether the product is divided by its length.
    """

    statistics: tuple[Statistic, ...]
    center: Floats | None = None
    projection: Floats | None = None
    unit_length: bool = False

    def embedding(self, pooled: Floats) -> Floats:
        """The finished vectors: (..., P) -> (..., D)."""
        if self.center is None or self.projection is None:
            return pooled
        embedding: Floats = np.matmul(pooled - self.center, self.projection)
        return unit(embedding) if self.unit_length else embedding


def unit(embedding: Floats) -> Floats:
    """Vectors (..., D) divided by their length; zeros stay."""
    length = np.linalg.norm(embedding, axis=-1, keepdims=True)
    scaled: Floats = embedding / np.maximum(length, np.finfo(np.float32).tiny)
    return scaled.astype(np.float32, copy=False)


def shortened(embedding: Floats, dimensions: int | None) -> Floats:
    """The first `dimensions` values of vectors (..., D), divided by their length; None: all.

    The vectors of a file with a readout have their best directions first, so that this is the best
    vector of that size; it stays in its space.

    Raises:
        ValueError: fewer than 1 or more than D.
    """
    n = embedding.shape[-1]
    if dimensions is None or dimensions == n:
        return embedding
    is_whole = isinstance(dimensions, int | np.integer) and not isinstance(dimensions, bool)
    if not is_whole or not 1 <= dimensions < n:
        raise ValueError(f"dimensions is {dimensions!r}; expected 1 to {n}")
    return unit(embedding[..., :dimensions])


class Pool:
    """Running statistics of frames (T, F): merged, they are the pooling of one pass."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._count = 0
        self._maximum = np.empty(0, np.float32)
        self._mean: Doubles = np.empty(0)
        self._scatter: list[Doubles] = []
        """Sums of squared distances from the mean, for each deviation."""

    def add(self, frames: Floats) -> None:
        """Take in frames (T, F), T >= 1."""
        seen = Pool(self._pooling)
        seen._count = len(frames)
        seen._maximum = frames.max(axis=0)
        seen._mean = frames.mean(axis=0, dtype=np.float64)
        for statistic in self._deviations():
            centred = frames[:, statistic.columns] - seen._mean[statistic.columns]
            seen._scatter.append(np.square(centred).sum(axis=0))
        self.merge(seen)

    def merge(self, other: "Pool") -> None:
        """Take in what another pool has seen (Chan, Golub and LeVeque, 1979)."""
        if self._count == 0:
            self._count, self._maximum = other._count, other._maximum
            self._mean, self._scatter = other._mean, other._scatter
            return
        count = self._count + other._count
        step = other._mean - self._mean
        share = other._count / count
        self._scatter = [
            mine + theirs + self._count * share * np.square(step[statistic.columns])
            for mine, theirs, statistic in zip(
                self._scatter, other._scatter, self._deviations(), strict=True
            )
        ]
        self._maximum = np.maximum(self._maximum, other._maximum)
        self._mean = self._mean + share * step
        self._count = count

    def embedding(self) -> Floats:
        """The finished vector, (D,)."""
        return self._pooling.embedding(self.pooled())

    def pooled(self) -> Floats:
        """The statistics one after the other, before the readout: (P,)."""
        deviations = iter(self._scatter)
        parts = [self._part(statistic, deviations) for statistic in self._pooling.statistics]
        return np.concatenate(parts).astype(np.float32)

    def _part(self, statistic: Statistic, scatters: Iterator[Doubles]) -> NDArray[np.floating]:
        columns = statistic.columns
        match statistic.kind:
            case "max+mean":
                return self._maximum[columns] + self._mean[columns].astype(np.float32)
            case "mean":
                return self._mean[columns]
            case "max":
                return self._maximum[columns]
            case "deviation":
                inside = np.maximum(self._mean[statistic.variances], 0)
                return np.sqrt(next(scatters) / self._count + inside)
            case "signed-root":
                return np.copysign(np.sqrt(np.abs(self._mean[columns])), self._mean[columns])

    def _deviations(self) -> list[Statistic]:
        return [s for s in self._pooling.statistics if s.kind == "deviation"]


@dataclass(frozen=True)
class Grid:
    """The windows of a recording, and the frames of an encoder that lie in them; all in samples.

    A window holds the frames whose middle lies in it. The last one ends with the recording: it is
    shorter than the others, or longer by less than two frames.

    Attributes:
        window: how long a window is, no less than a frame.
        hop: from the start of one window to the next, no less than a frame.
        card: of the encoder.
    """

    window: int
    hop: int
    card: Card

    @classmethod
    def of(cls, window_s: float, hop_s: float | None, card: Card) -> Self:
        """The same in seconds; `hop_s` None: no overlap.

        Raises:
            ValueError: a window or hop that is not above 0, or a hop longer than the window.
        """
        hop_s = window_s if hop_s is None else hop_s
        are_numbers = isinstance(window_s, Real) and isinstance(hop_s, Real)
        if not (are_numbers and 0 < hop_s <= window_s <= MAX_TIME_S):
            raise ValueError(
                f"window_s={window_s!r}, hop_s={hop_s!r}: expected 0 < hop_s <= window_s <= "
                f"{MAX_TIME_S:g}"
            )
        window, hop = round(window_s * SAMPLE_RATE), round(hop_s * SAMPLE_RATE)
        return cls(max(window, card.frame_hop), max(hop, card.frame_hop), card)

    def span(self, index: int) -> tuple[int, int]:
        """Start and end of a window that is not the last."""
        return index * self.hop, index * self.hop + self.window

    def frames(self, index: int) -> tuple[int, int]:
        """The first frame of a window that is not the last, and the one after its last."""
        start, end = self.span(index)
        return self._frames_before(start), self._frames_before(end)

    def reach(self, n_samples: int) -> float:
        """Where windows must end, to be whole in so many samples.

        After them come a frame's length and the middle of a frame.
        """
        last_middle = (self.card.n_frames(n_samples) - 1) * self.card.frame_hop + self._middle
        return min(n_samples - self.card.frame_hop, last_middle)

    def count(self, n_samples: int) -> int:
        """How many windows a recording has."""
        return 1 + max(0, math.floor((self.reach(n_samples) - self.window) / self.hop) + 1)

    def _frames_before(self, sample: int) -> int:
        return max(0, math.ceil((sample - self._middle) / self.card.frame_hop))

    @property
    def _middle(self) -> float:
        """Of what frame 0 sees."""
        return self.card.frame_offset + self.card.receptive_field / 2


class Timeline:
    """Frames of a recording, as they come -> its windows, as they are complete.

    Frames are pooled once, in chunks that end where a window starts or ends: two a hop at the most,
    whatever the lengths. A window merges its chunks.
    """

    def __init__(self, grid: Grid, pooling: Pooling) -> None:
        self._grid, self._pooling = grid, pooling
        starts = (grid.frames(index)[0] for index in itertools.count())
        ends = (grid.frames(index)[1] for index in itertools.count())
        self._cuts = heapq.merge(starts, ends)
        self._cut = next(self._cuts)
        self.chunks: deque[tuple[int, Pool]] = deque()
        """First frame and pool of each, from the start of the next window on."""
        self._next = 0  # window
        self._n_frames = 0
        self._n_samples = 0

    def add(self, frames: Floats, n_samples: int) -> list[Timed]:
        """The windows that are complete with the next frames (T, F).

        `n_samples` is how many of the recording's there have been, with those that no frame has
        been made of yet.
        """
        self._n_samples = n_samples
        while len(frames):
            if self._n_frames == self._cut:
                self.chunks.append((self._cut, Pool(self._pooling)))
                self._cut = next(cut for cut in self._cuts if cut > self._n_frames)
            part = frames[: self._cut - self._n_frames]
            self.chunks[-1][1].add(part)
            self._n_frames += len(part)
            frames = frames[len(part) :]
        return self._timed(list(self._complete()))

    def rest(self) -> list[Timed]:
        """The last window."""
        start, _ = self._grid.span(self._next)
        return self._timed([(start, self._n_samples, self._merged(self._n_frames))])

    def _complete(self) -> Iterator[tuple[int, int, Pool]]:
        """Start, end and pool of each window that has its frames and is not the last."""
        reach = self._grid.reach(self._n_samples)
        while True:
            start, end = self._grid.span(self._next)
            _, end_frame = self._grid.frames(self._next)
            if end > reach or end_frame > self._n_frames:
                return
            yield start, end, self._merged(end_frame)
            self._next += 1
            first_frame, _ = self._grid.frames(self._next)
            while self.chunks and self.chunks[0][0] < first_frame:
                self.chunks.popleft()

    def _merged(self, end_frame: int) -> Pool:
        merged = Pool(self._pooling)
        for first, chunk in self.chunks:
            if first < end_frame:
                merged.merge(chunk)
        return merged

    def _timed(self, windows: list[tuple[int, int, Pool]]) -> list[Timed]:
        """Windows that are complete together are projected together, which is far cheaper."""
        if not windows:
            return []
        vectors = self._pooling.embedding(np.stack([pool.pooled() for *_, pool in windows]))
        return [
            (start / SAMPLE_RATE, end / SAMPLE_RATE, vector)
            for (start, end, _), vector in zip(windows, vectors, strict=True)
        ]
