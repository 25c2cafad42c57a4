"""Pooling frames across tiles, for whole recordings and for timed windows, and the readout.

The graph pools what fits into one tile; this is the same pooling for what does not. Letters: `T`
frames of features, `P` pooled values, `D` embedding dim.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.modelfile import Statistic

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
    if not isinstance(dimensions, int | np.integer) or not 1 <= dimensions < n:
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


class WindowPools:
    """Pools a stream of frames over overlapping windows.

    Frames are pooled once, in chunks that end where a window starts or ends: two a hop at the most,
    whatever the lengths. A window merges its chunks.
    """

    def __init__(self, window: int, hop: int, pooling: Pooling) -> None:
        self.window, self.hop, self.pooling = window, hop, pooling
        whole_hops, rest = divmod(window, hop)
        self.sizes = [rest, hop - rest] if rest else [hop]
        self.chunks_per_window = whole_hops * len(self.sizes) + bool(rest)
        self.chunks: deque[Pool] = deque()  # from the start of the next window on
        self.filling = itertools.cycle(self.sizes)
        self.room = 0  # frames that the last chunk still takes
        self.next_start = 0
        self.n_frames = 0

    def add(self, frames: Floats) -> None:
        """Take in the next frames (T, F)."""
        self.n_frames += len(frames)
        while len(frames):
            if self.room == 0:
                self.chunks.append(Pool(self.pooling))
                self.room = next(self.filling)
            part = frames[: self.room]
            self.chunks[-1].add(part)
            self.room -= len(part)
            frames = frames[len(part) :]

    def finished(self) -> Iterator[tuple[int, int, Pool]]:
        """First frame, frame after the last, and pool of each window that has all of its frames."""
        while self.next_start + self.window <= self.n_frames:
            window = list(itertools.islice(self.chunks, self.chunks_per_window))
            yield self.next_start, self.next_start + self.window, self._merged(window)
            for _ in self.sizes:
                self.chunks.popleft()
            self.next_start += self.hop

    def rest(self) -> Iterator[tuple[int, int, Pool]]:
        """The shorter window at the end, if the recording goes on after the last whole one."""
        covered = self.next_start - self.hop + self.window if self.next_start else 0
        if covered < self.n_frames:
            yield self.next_start, self.n_frames, self._merged(self.chunks)

    def _merged(self, chunks: Iterable[Pool]) -> Pool:
        merged = Pool(self.pooling)
        for chunk in chunks:
            merged.merge(chunk)
        return merged


class Timeline:
    """Frames of a recording, as they come -> its windows, as they are complete.

    `window` and `hop` are in frames of `frame_s` seconds.
    """

    def __init__(self, window: int, hop: int, frame_s: float, pooling: Pooling) -> None:
        self._pools, self._frame_s = WindowPools(window, hop, pooling), frame_s

    def add(self, frames: Floats) -> list[Timed]:
        """The windows that are complete with the next frames (T, F)."""
        self._pools.add(frames)
        return self._timed(self._pools.finished())

    def rest(self) -> list[Timed]:
        """The shorter window at the end, if there is one."""
        return self._timed(self._pools.rest())

    def _timed(self, windows: Iterable[tuple[int, int, Pool]]) -> list[Timed]:
        """Windows that are complete together are projected together, which is far cheaper."""
        spans, pools = [], []
        for first, end, pool in windows:
            spans.append((first * self._frame_s, end * self._frame_s))
            pools.append(pool.pooled())
        if not pools:
            return []
        vectors = self._pools.pooling.embedding(np.stack(pools))
        return [(start, end, vector) for (start, end), vector in zip(spans, vectors, strict=True)]
