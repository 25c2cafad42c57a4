"""Pooling frames across tiles: maximum and sum merge, for whole recordings and for timed windows.

The graph pools what fits into one tile; this is the same pooling for what does not. Letters: `T`
frames of features, `D` embedding dim.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Timed = tuple[float, float, Floats]
"""Start and end of a window in seconds, and its vector (D,)."""


@dataclass
class Pool:
    """Running maximum and sum of frames (T, D): merged, they are the pooling of one pass."""

    count: int = 0
    maximum: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    total: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def add(self, frames: Floats) -> None:
        """Take in frames (T, D), T >= 1."""
        self._merge(len(frames), frames.max(axis=0), frames.sum(axis=0, dtype=np.float64))

    def merge(self, other: "Pool") -> None:
        """Take in what another pool has seen."""
        self._merge(other.count, other.maximum, other.total)

    def _merge(self, count: int, maximum: Floats, total: NDArray[np.float64]) -> None:
        if self.count == 0:
            self.maximum, self.total = maximum, total
        else:
            self.maximum, self.total = np.maximum(self.maximum, maximum), self.total + total
        self.count += count

    def embedding(self) -> Floats:
        """Maximum + mean, (D,)."""
        return self.maximum + (self.total / self.count).astype(np.float32)


class WindowPools:
    """Pools a stream of frames over overlapping windows.

    Frames are pooled once, in chunks that end where a window starts or ends: two a hop at the most,
    whatever the lengths. A window merges its chunks.
    """

    def __init__(self, window: int, hop: int) -> None:
        self.window, self.hop = window, hop
        whole_hops, rest = divmod(window, hop)
        self.sizes = [rest, hop - rest] if rest else [hop]
        self.chunks_per_window = whole_hops * len(self.sizes) + bool(rest)
        self.chunks: deque[Pool] = deque()  # from the start of the next window on
        self.filling = itertools.cycle(self.sizes)
        self.room = 0  # frames that the last chunk still takes
        self.next_start = 0
        self.n_frames = 0

    def add(self, frames: Floats) -> None:
        """Take in the next frames (T, D)."""
        self.n_frames += len(frames)
        while len(frames):
            if self.room == 0:
                self.chunks.append(Pool())
                self.room = next(self.filling)
            part = frames[: self.room]
            self.chunks[-1].add(part)
            self.room -= len(part)
            frames = frames[len(part) :]

    def finished(self) -> Iterator[tuple[int, int, Pool]]:
        """First frame, frame after the last, and pool of each window that has all of its frames."""
        while self.next_start + self.window <= self.n_frames:
            window = list(itertools.islice(self.chunks, self.chunks_per_window))
            yield self.next_start, self.next_start + self.window, _merged(window)
            for _ in self.sizes:
                self.chunks.popleft()
            self.next_start += self.hop

    def rest(self) -> Iterator[tuple[int, int, Pool]]:
        """The shorter window at the end, if the recording goes on after the last whole one."""
        covered = self.next_start - self.hop + self.window if self.next_start else 0
        if covered < self.n_frames:
            yield self.next_start, self.n_frames, _merged(self.chunks)


class Timeline:
    """Frames of a recording, as they come -> its windows, as they are complete.

    `window` and `hop` are in frames of `frame_s` seconds.
    """

    def __init__(self, window: int, hop: int, frame_s: float) -> None:
        self._pools, self._frame_s = WindowPools(window, hop), frame_s

    def add(self, frames: Floats) -> list[Timed]:
        """The windows that are complete with the next frames (T, D)."""
        self._pools.add(frames)
        return self._timed(self._pools.finished())

    def rest(self) -> list[Timed]:
        """The shorter window at the end, if there is one."""
        return self._timed(self._pools.rest())

    def _timed(self, windows: Iterable[tuple[int, int, Pool]]) -> list[Timed]:
        frame_s = self._frame_s
        return [(first * frame_s, end * frame_s, pool.embedding()) for first, end, pool in windows]


def _merged(pools: Iterable[Pool]) -> Pool:
    merged = Pool()
    for pool in pools:
        merged.merge(pool)
    return merged
