"""The log-mel spectrogram that an encoder sees, as a picture of bytes.

A clip is cut into pieces that overlap by what a frame sees, so that the picture does not depend on
the cuts. Letters: `S` samples, `F` mel bands, `T` frames of 10 ms.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.runtime import Encoder, Floats
from models.tiles import checked
from service.inference.batcher import Batcher, Deadlines

HOP = 160  # samples from one frame to the next
MARGIN = 4 * HOP  # beside a cut, where frames would see beyond the piece: half a window is 512
LOW, HIGH = -16.0, 8.0  # natural logarithms: silence, and above a full-scale tone in one band

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """Samples from `start` to `stop`, and the frames of them, `first` to `end`, that are used."""

    start: int
    stop: int
    first: int
    end: int


def cuts(n_samples: int, longest: int) -> Iterator[Piece]:
    """Pieces of at most `longest` samples; their used frames together are the 1 + S // HOP."""
    longest = longest // HOP * HOP
    start, done, n_frames = 0, 0, 1 + n_samples // HOP
    while done < n_frames:
        stop = min(start + longest, n_samples)
        end = n_frames if stop == n_samples else (stop - MARGIN) // HOP
        yield Piece(start, stop, done - start // HOP, end - start // HOP)
        done = end
        start = max(0, done * HOP - MARGIN)


async def log_mel(batcher: Batcher, encoder: Encoder, samples: Floats) -> Picture:
    """The picture of a clip: (S,) -> (T, F), from 0 for LOW to 255 for HIGH.

    Raises:
        ServiceError: the inference failed.
    """
    deadlines, parts = Deadlines(), []
    for piece in cuts(len(checked(samples)), encoder.tiling.tile_samples):
        row = await batcher.run(deadlines, encoder, "log_mel", samples[piece.start : piece.stop])
        parts.append(_bytes(row[:, piece.first : piece.end].T))
    return np.concatenate(parts)


def _bytes(values: Floats) -> Picture:
    scaled: Floats = np.clip((values - LOW) / (HIGH - LOW), 0, 1) * 255
    picture: Picture = np.rint(scaled).astype(np.uint8)
    return picture
