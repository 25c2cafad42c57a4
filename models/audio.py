"""Audio files or bytes -> mono float32 at 16 kHz, in blocks, refusing what is hostile or broken.

`models.containers` reads the file; limits, checks, downmix and resampling are here.

Shapes: S samples at 16 kHz.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from models import containers
from models.containers import ContainerError, Sound
from models.quality import Meter

SAMPLE_RATE = 16_000
# Float files scaled as 16-bit integers pass; garbage such as 1e38 does not.
MAX_AMPLITUDE = 65_536.0
NOTHING = "the file holds no audio samples; send one that does"

Reason = Literal[
    "unreadable",
    "empty",
    "unsupported",
    "corrupt",
    "truncated",
    "non_finite",
    "amplitude",
    "sample_rate",
    "channels",
    "duration",
    "decoded_bytes",
]


@dataclass(frozen=True)
class Limits:
    """What a caller is willing to decode, checked on decoded counts and not on headers alone.

    Attributes:
        max_duration_s: seconds of audio; the resampled output is then bounded too. None: unlimited.
        max_decoded_bytes: bytes of decoded PCM, `frames * channels * 4`. None: unlimited.
        min_sample_rate: Hz; forged low rates make a small file explode in the resampler.
        max_sample_rate: Hz.
        max_channels: count.
    """

    max_duration_s: float | None = None
    max_decoded_bytes: int | None = None
    min_sample_rate: int = 4_000
    max_sample_rate: int = 384_000
    max_channels: int = 8


class AudioError(ValueError):
    """Audio that cannot be used, and what to do about it.

    The message never holds the file's name nor a library's own text; the caller adds the name.

    Attributes:
        reason: one of `Reason`.
        limit: what was allowed or promised, in `unit`; None where no number applies.
        observed: what was found instead, in `unit`.
        unit: "s", "Hz", "bytes", "channels" or None.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        limit: float | None = None,
        observed: float | None = None,
        unit: str | None = None,
    ) -> None:
        super().__init__(reason, message, limit, observed, unit)  # all of them, so that it pickles
        self.reason: Reason = reason
        self.message = message
        self.limit = limit
        self.observed = observed
        self.unit = unit

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Header:
    """What a file claims to be; nothing of its stream was decoded.

    Attributes:
        duration_s: None where the headers do not say, or cannot be relied upon.
        error: what the headers alone are refused for.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float | None
    error: AudioError | None


def stream(
    source: str | Path | bytes,
    limits: Limits = Limits(),
    meter: Meter | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Decode `source` in blocks of 16 kHz mono; memory does not grow with the recording.

    Every block is non-empty and contiguous. Channels are averaged; soxr (HQ) resamples.

    A file that breaks part way raises after the blocks that came before. What cannot be detected:
    an Ogg file cut exactly between two pages, an MP3 without a Xing header that is cut short, a
    webm cut short beside a video, and damage inside a stream that its decoder conceals (MP3, Ogg,
    AAC; PCM has no check at all).

    Args:
        source: a path, or the bytes of a file.
        limits: what to refuse.
        meter: measures the quality of what is decoded, before it is mixed down and resampled.

    Raises:
        AudioError: for anything that is wrong with the source.
    """
    with _opened(source) as sound:
        _check_header(sound, limits)
        if meter is not None:
            meter.begin(sound)
        yield from _resampled(_mono(sound, limits, meter), sound)


def decode(source: str | Path | bytes, limits: Limits = Limits()) -> NDArray[np.float32]:
    """Decode `source` as a whole: -> (S,). See `stream`."""
    return np.concatenate(list(stream(source, limits)))


def read_header(source: str | Path | bytes, limits: Limits = Limits()) -> Header:
    """What `source` claims to be, and what its headers alone would be refused for.

    Raises:
        AudioError: there are no headers that can be read.
    """
    with _opened(source) as sound:
        return Header(
            container=sound.container,
            codec=sound.codec,
            sample_rate=sound.rate,
            channels=sound.channels,
            duration_s=_claimed_s(sound),
            error=_header_error(sound, limits),
        )


def _claimed_s(sound: Sound) -> float | None:
    return sound.frames / sound.rate if sound.frames is not None and sound.rate else None


def _header_error(sound: Sound, limits: Limits) -> AudioError | None:
    try:
        _check_header(sound, limits)
    except AudioError as error:
        return error
    if sound.is_cut:
        message = "the file ends before what its headers promise; copy or encode the file again"
        return AudioError("truncated", message)
    if sound.frames == 0:
        return AudioError("empty", NOTHING)
    return None


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[Sound]:
    """The source as a sound; what is wrong with it, now or while it is read, is an AudioError."""
    try:
        with _open(source) as file:
            yield containers.open_sound(file)
    except ContainerError as error:
        raise AudioError(*error.args) from error
    except OSError as error:
        raise AudioError("unreadable", f"the file cannot be read: {error.strerror}") from error


def _open(source: str | Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")


def _check_header(sound: Sound, limits: Limits) -> None:
    low, high = limits.min_sample_rate, limits.max_sample_rate
    if not low <= sound.rate <= high:
        bound, word = (low, "below") if sound.rate < low else (high, "above")
        raise AudioError(
            "sample_rate",
            f"a sample rate of {sound.rate} Hz is {word} the limit of {bound} Hz; resample",
            bound,
            sound.rate,
            "Hz",
        )
    if not 1 <= sound.channels <= limits.max_channels:
        raise AudioError(
            "channels",
            f"{sound.channels} channels are outside 1 to {limits.max_channels}; mix the audio down",
            limits.max_channels,
            sound.channels,
            "channels",
        )
    if sound.frames is not None:
        _check_length(sound, sound.frames, limits)  # early; decoded counts are checked as well


def _check_length(sound: Sound, frames: int, limits: Limits) -> None:
    seconds, n_bytes = frames / sound.rate, frames * sound.channels * 4
    if limits.max_duration_s is not None and seconds > limits.max_duration_s:
        raise AudioError(
            "duration",
            f"{seconds:.2f} s of audio or more exceed the limit of {limits.max_duration_s:g} s; "
            "cut it into shorter parts",
            limits.max_duration_s,
            seconds,
            "s",
        )
    if limits.max_decoded_bytes is not None and n_bytes > limits.max_decoded_bytes:
        raise AudioError(
            "decoded_bytes",
            f"{n_bytes} decoded bytes or more exceed the limit of {limits.max_decoded_bytes}; "
            "cut the audio, lower its sample rate or mix it down",
            limits.max_decoded_bytes,
            n_bytes,
            "bytes",
        )


def _mono(sound: Sound, limits: Limits, meter: Meter | None) -> Iterator[NDArray[np.float32]]:
    """Check and average the channels of every block: (frames, channels) -> (frames,)."""
    frames = 0
    for block in filter(len, sound.blocks):
        _check_samples(block, frames / sound.rate)
        frames += len(block)
        _check_length(sound, frames, limits)
        if meter is not None:
            meter.add(block)
        yield block[:, 0] if sound.channels == 1 else block.mean(axis=1)


def _check_samples(block: NDArray[np.float32], start_s: float) -> None:
    peak = float(max(block.max(), -block.min()))  # NaN and infinity carry through
    if not np.isfinite(peak):
        message = f"a sample after {start_s:.2f} s is NaN or infinite; export the audio again"
        raise AudioError("non_finite", message)
    if peak > MAX_AMPLITUDE:
        raise AudioError(
            "amplitude",
            f"a sample after {start_s:.2f} s has the amplitude {peak:.3g}, more than the limit of "
            f"{MAX_AMPLITUDE:g}; scale the audio to [-1, 1]",
            MAX_AMPLITUDE,
            peak,
        )


def _resampled(
    blocks: Iterator[NDArray[np.float32]], sound: Sound
) -> Iterator[NDArray[np.float32]]:
    """Bring mono blocks to 16 kHz; nothing at all is an error."""
    blocks = _at_16_khz(blocks, sound.rate)
    n_samples = 0
    for block in blocks:
        if len(block):
            n_samples += len(block)
            yield block
    if not n_samples:
        raise AudioError("empty", NOTHING)


def _at_16_khz(blocks: Iterator[NDArray[np.float32]], rate: int) -> Iterator[NDArray[np.float32]]:
    resampler = Resampler(rate)
    for block in blocks:
        yield resampler.add(block)
    yield resampler.rest()


class Resampler:
    """Mono blocks at any rate -> blocks (S,), by soxr (HQ); what is at 16 kHz stays as it is."""

    def __init__(self, rate: int) -> None:
        self._soxr = None
        if rate != SAMPLE_RATE:
            self._soxr = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def add(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the next block adds, which may be nothing yet."""
        return self._run(np.ascontiguousarray(block), last=False)

    def rest(self) -> NDArray[np.float32]:
        """What is left at the end."""
        return self._run(np.zeros(0, np.float32), last=True)

    def _run(self, block: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        if self._soxr is None:
            return block
        resampled: NDArray[np.float32] = self._soxr.resample_chunk(block, last=last)
        return resampled
