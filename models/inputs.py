"""Whatever an encoder is given -> a file to decode, samples (S,), or blocks of samples.

Letters: `S` samples at 16 kHz.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from models import audio
from models.audio import SAMPLE_RATE
from models.limits import AudioError, Limits
from models.selection import WHOLE, Selection
from models.tiles import TILE_S, checked

Floats = NDArray[np.float32]
Source = Any
"""A path; a file's bytes (also bytearray, memoryview); a file open for reading; samples (S,) at
16 kHz as an array, a tensor or a list: floats in [-1, 1], or int16, int32, uint8 as in WAV; or an
iterable of blocks of floats, as `models.audio.stream` gives."""

_FULL_SCALE = {"int16": (0, 2**15), "int32": (0, 2**31), "uint8": (128, 2**7)}  # and zero
_SOURCES = "a path, a file's bytes, an open file, samples or blocks of them"
_EXPECTED = "floats in [-1, 1], int16, int32 or uint8"


def blocks(
    source: Source, limits: Limits = Limits(), selection: Selection = WHOLE
) -> Iterable[Floats]:
    """A recording, however it is given, as blocks (S,).

    Raises:
        AudioError: it cannot be used; perhaps after some blocks.
    """
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if isinstance(source, os.PathLike):
        source = Path(source)
    if isinstance(source, str | Path | bytes) or hasattr(source, "read"):
        return audio.stream(cast(BinaryIO, source), limits, selection=selection)
    found = samples(source)
    if found is not None:
        return cut(selected(checked(found), selection))
    if selection != WHOLE:
        message = "a part can be selected of a file or an array, not of blocks; cut them yourself"
        raise AudioError("selection", message)
    if not isinstance(source, Iterable) or isinstance(source, dict | set):
        message = f"a {type(source).__name__} is no recording; expected {_SOURCES}"
        raise AudioError("unsupported", message)
    return map(checked, source)


def samples(source: Source) -> Floats | None:
    """Samples (S,) if the source is an array of any kind; None if it is something else.

    Raises:
        AudioError: an array of something that is no sound.
    """
    if isinstance(source, list | tuple) and all(isinstance(one, np.ndarray) for one in source[:1]):
        return None if source else np.zeros(0, np.float32)
    if not (isinstance(source, list | tuple) or hasattr(source, "__array__")):
        return None
    if np.ma.isMaskedArray(source) and np.ma.is_masked(source):
        message = "the samples are masked in part; fill what is masked, or leave it out"
        raise AudioError("unsupported", message)
    try:
        array = np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list, a tensor in bfloat16
        message = f"a {type(source).__name__} that NumPy cannot read as samples: {error}"
        raise AudioError("unsupported", message) from error
    if array.ndim != 1:
        message = (
            f"samples of shape {array.shape}; expected (S,), one channel: choose one, or take the "
            "mean over the axis of the channels"
        )
        raise AudioError("channels", message)
    return floats(array)


def floats(array: NDArray[Any]) -> Floats:
    """Samples of any of the usual types as floats in [-1, 1].

    Raises:
        AudioError: the type does not tell what full scale is.
    """
    name = array.dtype.name
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large is refused by name
            return array.astype(np.float32, copy=False)
    if name in _FULL_SCALE:
        zero, scale = _FULL_SCALE[name]
        scaled: Floats = ((array.astype(np.float64) - zero) / scale).astype(np.float32)
        return scaled
    raise AudioError("unsupported", f"samples are {name}; expected {_EXPECTED}: scale them")


class Counted:
    """Passes blocks (S,) on, and counts their samples."""

    def __init__(self, blocks: Iterable[Floats]) -> None:
        self._blocks = blocks
        self.n_samples = 0

    def __iter__(self) -> Iterator[Floats]:
        for block in self._blocks:
            self.n_samples += len(block)
            yield block


def selected(found: Floats, selection: Selection) -> Floats:
    """The part of samples (S,) that is meant.

    Raises:
        AudioError: there is nothing of it, or no such channel.
    """
    if selection.channel not in ("mix", 0):
        message = f"there is no channel {selection.channel}: the samples are of one; choose 0"
        raise AudioError("selection", message, 0, float(selection.channel), "channels")
    first = round(selection.start_s * SAMPLE_RATE)
    last = None if selection.end_s is None else round(selection.end_s * SAMPLE_RATE)
    if first >= len(found):
        seconds = len(found) / SAMPLE_RATE
        message = f"start_s = {selection.start_s:g} lies behind the end: there are {seconds:.2f} s"
        raise AudioError("selection", message, seconds, selection.start_s, "s")
    return found[first:last]


def cut(found: Floats) -> Iterator[Floats]:
    """Samples (S,) in parts of a tile's length."""
    step = round(TILE_S * SAMPLE_RATE)
    return (found[first : first + step] for first in range(0, len(found), step))
