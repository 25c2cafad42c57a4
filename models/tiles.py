"""How recordings are cut into tiles, and the few shapes that batches of tiles and clips have.

A tile overlaps its neighbours by what a frame of features sees (the halo), so that the frames of
the tiles, put together, are those of one pass over the whole. Letters: `S` samples, `T` frames of
features, `D` embedding dim.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE
from models.card import Card
from models.limits import MAX_AMPLITUDE, AudioError
from models.modelfile import ModelFileError

Floats = NDArray[np.float32]
C = TypeVar("C")

TILE_S = 10.24  # longest tile, and the audio in one batch
SHORTEST_TILE_S = 0.32
FLOATS = "floats in [-1, 1]"


@dataclass(frozen=True)
class Tile:
    """A part of a recording, and which of its frames the cut does not touch; `stop` None: the rest.

    The samples are (S,), of one of the lengths that fit into a bucket.
    """

    samples: Floats
    start: int = 0
    stop: int | None = None


class Tiling:
    """The cuts and the shapes that one encoder asks for.

    Attributes:
        buckets: lengths of batches in samples, in ascending order; the last is that of a tile.
    """

    def __init__(self, card: Card) -> None:
        """Raises ModelFileError: no frame of this encoder fits into a tile."""
        self.card = card
        hop = card.frame_hop
        # frames at either end of a tile that see beyond the cut
        self.halo_left = math.ceil(-card.frame_offset / hop) + card.context_frames
        self.halo_right = math.ceil((card.receptive_field + card.frame_offset - hop) / hop)
        self.tile_frames = round(TILE_S * SAMPLE_RATE / hop)
        shortest = max(card.min_samples, round(SHORTEST_TILE_S * SAMPLE_RATE))
        halo = self.halo_left + max(0, self.halo_right)
        if self.tile_frames <= halo or self.tile_frames * hop < shortest:
            raise ModelFileError(
                f"{card.name} cannot be cut into tiles of {TILE_S} s: its card says min_samples "
                f"{card.min_samples}, frame_hop {hop}, receptive_field {card.receptive_field}, "
                f"frame_offset {card.frame_offset}, context_frames {card.context_frames}"
            )
        self.buckets = _bucket_lengths(shortest, self.tile_frames * hop)

    @property
    def tile_samples(self) -> int:
        """Samples of the longest tile; a clip of no more is embedded in one piece."""
        return self.buckets[-1]

    def bucket(self, n_samples: int) -> int:
        """The length of the batch that a tile or clip belongs to."""
        return next(size for size in self.buckets if size >= n_samples)

    def max_rows(self, bucket: int) -> int:
        """How many rows a batch has at most, `TILE_S` of audio in all."""
        return self.tile_samples // bucket

    def cut(self, blocks: Iterable[Floats], new_frames: int | None = None) -> Iterator[Tile]:
        """Cut one recording, whose blocks come one after the other; as `Cutter`."""
        cutter = Cutter(self, new_frames)
        for block in blocks:
            yield from cutter.add(block)
        yield cutter.rest()

    def new_frames(self, tile_s: float) -> int:
        """Frames that a tile of so many seconds adds to its recording, one at least."""
        frames = round(tile_s * SAMPLE_RATE / self.card.frame_hop)
        return max(1, frames - self.halo_left - self.halo_right)

    def own_frames(self, tile: Tile, frames: Floats) -> Floats:
        """The frames that a tile adds to its recording, of all those of its row: (T, D)."""
        stop = self.card.n_frames(len(tile.samples)) if tile.stop is None else tile.stop
        return frames[tile.start : stop]


class Cutter:
    """Cuts one recording that comes in blocks (S,).

    A tile leaves once more has come, so that the last is no scrap. `new_frames` is how many frames
    a tile adds; few mean little delay and much overlap. None: as many as the longest tile allows.
    """

    def __init__(self, tiling: Tiling, new_frames: int | None = None) -> None:
        halo = tiling.halo_left + tiling.halo_right
        frames = tiling.tile_frames if new_frames is None else new_frames + halo
        least = math.ceil(tiling.card.min_samples / tiling.card.frame_hop)
        self._hop = tiling.card.frame_hop
        self._halo_left = tiling.halo_left
        frames = max(least, min(frames, tiling.tile_frames))
        self._size = frames * self._hop
        self._stop = frames - tiling.halo_right
        self._held = np.empty(0, np.float32)
        self._start = 0

    def add(self, block: Floats) -> Iterator[Tile]:
        """The tiles that are complete with this block."""
        self._held = np.concatenate([self._held, block])
        while len(self._held) > self._size:
            yield Tile(self._held[: self._size], self._start, self._stop)
            self._start = self._halo_left
            self._held = self._held[(self._stop - self._halo_left) * self._hop :]

    def rest(self) -> Tile:
        """The last tile.

        Raises:
            AudioError: there were no samples at all.
        """
        return Tile(checked(self._held), self._start)


def groups(items: Sequence[C], most: int) -> Iterator[Sequence[C]]:
    """Split a row of things into batches of 1, 2, 4, ... at most `most`: few shapes, all full."""
    first = 0
    while first < len(items):
        size = batch_size(len(items) - first, most)
        yield items[first : first + size]
        first += size


def batch_size(n_waiting: int, most: int) -> int:
    """The size of the next batch: the largest power of two that `n_waiting` and `most` allow."""
    return 1 << (min(most, n_waiting).bit_length() - 1)


def checked(samples: Floats) -> Floats:
    """Refuse samples that no embedding can be computed of.

    Raises:
        AudioError: for what is not (S,), not floats, empty, not finite or far out of range.
    """
    if not isinstance(samples, np.ndarray):
        kind = type(samples).__name__
        message = f"samples are a {kind}; expected an array of {FLOATS}: a file goes to embed"
        raise AudioError("unsupported", message)
    if samples.ndim != 1:
        raise AudioError("channels", f"samples of shape {samples.shape}; expected (S,), mono")
    if samples.dtype.kind != "f":
        raise AudioError("unsupported", f"samples are {samples.dtype}; expected {FLOATS}")
    if len(samples) == 0:
        raise AudioError("empty", "the recording holds no samples", limit=1, observed=0)
    peak = np.abs(samples).max()
    if not np.isfinite(peak):
        raise AudioError("non_finite", "the samples are not all finite numbers")
    if peak > MAX_AMPLITUDE:
        message = f"a sample of {peak:g}; at most {MAX_AMPLITUDE:g}, floats are meant in [-1, 1]"
        raise AudioError("amplitude", message, limit=MAX_AMPLITUDE, observed=float(peak))
    return samples


def _bucket_lengths(shortest: int, longest: int) -> list[int]:
    """Lengths of batches in samples, four an octave: a clip is padded by a fifth at the most."""
    n = math.ceil(4 * math.log2(longest / shortest))
    return sorted({math.ceil(longest * 2 ** (-step / 4)) for step in range(n + 1)})
