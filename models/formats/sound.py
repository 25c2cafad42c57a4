"""What every reader of a format gives: a part of a file, its sound, or what is wrong with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Blocks = Callable[[int], Iterator[Floats]]
"""(frames, channels) each, from that frame on; raises ContainerError where the samples break."""

AGAIN = "copy or encode the file again"

_BLOCK_S = 1.0  # seconds a block, unless that would be more than
_BLOCK_BYTES = 1 << 20  # bytes of float32 in all channels together


class ContainerError(Exception):
    """A file that cannot be read; `models.limits.AudioError` says what the arguments mean."""

    def __init__(
        self,
        reason: Literal["empty", "unsupported", "corrupt", "truncated"],
        message: str,
        limit: float | None = None,
        observed: float | None = None,
        unit: str | None = None,
    ) -> None:
        super().__init__(reason, message, limit, observed, unit)


@dataclass(frozen=True)
class Sound:
    """An opened part of a file, none of whose samples is decoded yet.

    Attributes:
        rate: Hz; as the header has it, however absurd.
        channels: count; likewise.
        frames: count; None where the file does not say or cannot be relied upon.
        blocks: the samples, to be taken once; from any frame on if `is_seekable`, else from 0 on.
        container: one of `models.containers.FORMATS`, in short.
        codec: how the samples are packed, in the words of libsndfile or FFmpeg.
        is_cut: the file ends before what its headers promise, as far as can be told from them.
        is_seekable: `frames` is exact, and any frame can be had without those before it.
    """

    rate: int
    channels: int
    frames: int | None
    blocks: Blocks
    container: str
    codec: str
    is_cut: bool = False
    is_seekable: bool = False


class Part(NamedTuple):
    """One of the recordings that a file holds, one behind the other; most files hold one.

    Attributes:
        stop: offset in bytes behind it.
        open: gives its sound.
    """

    stop: int
    open: Callable[[], Sound]


def block_frames(rate: int, channels: int) -> int:
    """How many frames a block holds."""
    return max(1, min(int(rate * _BLOCK_S), _BLOCK_BYTES // (4 * max(1, channels))))


def stop(
    reason: Literal["corrupt", "truncated"], name: str, rate: int, frames: int, promised: int | None
) -> NoReturn:
    """Say where a stream broke off.

    Raises:
        ContainerError: always.
    """
    rate = max(1, rate)
    total = None if promised is None else promised / rate
    of = "" if total is None else f" of {total:.2f} s"
    how = "is damaged" if reason == "corrupt" else "ends"
    message = f"the {name} stream {how} after {frames / rate:.2f} s{of}; {AGAIN}"
    raise ContainerError(reason, message, total, frames / rate, "s")
