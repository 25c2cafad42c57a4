"""Audio files or bytes -> mono float32 at 16 kHz, in blocks, refusing what is hostile or broken.

`models.containers` reads the file; limits, checks, downmix and resampling are here.

Shapes: S samples at 16 kHz.
"""

import io
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from models.containers import open_sounds
from models.formats.file import File
from models.formats.sound import ContainerError, Sound
from models.quality import Meter, Mixdown

SAMPLE_RATE = 16_000
# Float files scaled as 16-bit integers pass; garbage such as 1e38 does not.
MAX_AMPLITUDE = 65_536.0
NOTHING = "the file holds no audio samples; send one that does"
MAX_CHANNEL = 255  # the highest number of a channel that may be chosen
MAX_TIME_S = 1e7  # four months; the latest time that may be chosen
_HELD_BYTES = 64 << 20  # of a pipe, beyond which its content goes to the disk

AudioFile = str | Path | bytes | BinaryIO
"""A path, the bytes of a file, or a file that is open for reading: a pipe is read to its end."""
Warn = Callable[[str], None]
"""Is told, in a sentence, what is no error and yet makes the samples worth less."""

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
    "selection",
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


class AudioWarning(UserWarning):
    """Something about a recording that makes its samples worth less."""


@dataclass(frozen=True)
class Selection:
    """Which part of a recording is meant.

    Attributes:
        channel: its number, from 0, or "mix" for the mean of all channels.
        start_s: seconds from the beginning of the recording.
        end_s: seconds from the beginning, as far as there are so many; None: to the end.
    """

    channel: int | Literal["mix"] = "mix"
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if self.channel != "mix" and type(self.channel) is not int:
            what = f"channel = {self.channel!r} is none: expected mix, or 0 to {MAX_CHANNEL}"
            raise AudioError("selection", what)
        if self.channel != "mix" and not 0 <= self.channel <= MAX_CHANNEL:
            what = f"channel = {self.channel} is none: expected mix, or 0 to {MAX_CHANNEL}"
            raise AudioError("selection", what, MAX_CHANNEL, self.channel, "channels")
        end_s = MAX_TIME_S if self.end_s is None else self.end_s
        for name, value in (("start_s", self.start_s), ("end_s", end_s)):
            if not isinstance(value, Real):
                what = f"{name} = {value!r} is no time: expected 0 to {MAX_TIME_S:g} seconds"
                raise AudioError("selection", what)
            if not (math.isfinite(value) and 0 <= value <= MAX_TIME_S):
                what = f"{name} = {value:g} is no time: expected 0 to {MAX_TIME_S:g} seconds"
                raise AudioError("selection", what, MAX_TIME_S, value, "s")
        if self.start_s >= end_s:
            what = f"start_s = {self.start_s:g} is not before end_s = {end_s:g}; choose a later end"
            raise AudioError("selection", what, end_s, self.start_s, "s")


WHOLE = Selection()


@dataclass(frozen=True)
class Header:
    """What a file claims to be; nothing of its stream was decoded.

    Attributes:
        sample_rate: of the first recording, if the file holds several in a row.
        channels: likewise.
        duration_s: None where the headers do not say, or cannot be relied upon.
        warnings: what was noticed and is no error.
        error: what the headers alone are refused for.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float | None
    error: AudioError | None
    warnings: list[str]


def warn_in_python(sentence: str) -> None:
    """Tell by Python's own warnings."""
    warnings.warn(sentence, AudioWarning, stacklevel=3)


def stream(
    source: AudioFile,
    limits: Limits = Limits(),
    meter: Meter | None = None,
    selection: Selection = WHOLE,
    warn: Warn = warn_in_python,
) -> Iterator[NDArray[np.float32]]:
    """Decode `source` in blocks of 16 kHz mono; memory does not grow with the recording.

    Every block is non-empty and contiguous. Channels are averaged unless one is selected; soxr (HQ)
    resamples. Values beyond full scale stay as they are. Files that were joined are read to the
    end, whatever the rates and channels of their parts.

    A file that breaks part way raises after the blocks that came before; what lies behind the
    selection is not looked at. `docs/formats.md` lists what cannot be detected.

    Args:
        source: what to decode.
        limits: what to refuse.
        meter: measures the quality of what is decoded, before it is mixed down and resampled.
        selection: the part and the channel that are meant.
        warn: is told what was noticed.

    Raises:
        AudioError: for anything that is wrong with the source.
    """
    with _opened(source) as file:
        selector = _Selector(limits, meter, selection)
        n_samples = 0
        for sound in open_sounds(file):
            if selector.is_done:
                break
            selector.check(sound)
            for block in _at_16_khz(selector.mono(sound), sound.rate):
                if len(block):
                    n_samples += len(block)
                    yield block
        if not n_samples:
            raise selector.nothing()
        for sentence in (*file.warnings, *selector.mixdown.warnings):
            warn(sentence)


def decode(
    source: AudioFile,
    limits: Limits = Limits(),
    selection: Selection = WHOLE,
    warn: Warn = warn_in_python,
) -> NDArray[np.float32]:
    """Decode `source` as a whole: -> (S,). See `stream`."""
    return np.concatenate(list(stream(source, limits, None, selection, warn)))


def read_header(
    source: AudioFile, limits: Limits = Limits(), selection: Selection = WHOLE
) -> Header:
    """What `source` claims to be, and what its headers alone would be refused for.

    The duration, and what it is refused for, are those of the selection.

    Raises:
        AudioError: there are no headers that can be read.
    """
    with _opened(source) as file:
        sounds = list(open_sounds(file))
    first, is_known = sounds[0], all(sound.frames is not None for sound in sounds)
    selector = _Selector(limits, None, selection)
    error = _header_error(sounds, selector, is_known=is_known)
    return Header(
        container=first.container,
        codec=first.codec,
        sample_rate=first.rate,
        channels=first.channels,
        duration_s=selector.seconds if is_known else None,
        error=error,
        warnings=file.warnings,
    )


def _header_error(
    sounds: list[Sound], selector: "_Selector", *, is_known: bool
) -> AudioError | None:
    error = None
    for sound in sounds:
        try:
            selector.claim(sound)
        except AudioError as found:
            error = error or found
    if error is not None:
        return error
    if any(sound.is_cut for sound in sounds):
        message = "the file ends before what its headers promise; copy or encode the file again"
        return AudioError("truncated", message)
    return selector.nothing() if is_known and not selector.seconds else None


@contextmanager
def _opened(source: AudioFile) -> Iterator[File]:
    """The source as a file; what is wrong with it, now or while it is read, is an AudioError."""
    try:
        with ExitStack() as stack:
            yield File(_open(source, stack))
    except ContainerError as error:
        raise AudioError(*error.args) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AudioError("unreadable", f"the file cannot be read: {reason}") from error


def _open(source: AudioFile, stack: ExitStack) -> BinaryIO:
    """A file that can be read anywhere: what comes through a pipe is kept until it has ended."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, io.TextIOBase):
        message = "the file is open for reading text; open it with mode 'rb'"
        raise AudioError("unreadable", message)
    if "\0" in str(source):
        raise AudioError("unreadable", "the file cannot be read: its name holds NUL")
    if isinstance(source, str | Path):
        source = Path(source).open("rb")  # noqa: SIM115
        stack.enter_context(source)
    if source.seekable():
        return source
    held = tempfile.SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115
    stack.enter_context(held)
    shutil.copyfileobj(source, held)
    return held  # type: ignore[return-value]


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


class _Tally:
    """Counts the selected parts of a file and compares them with the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.seconds, self.n_bytes = 0.0, 0

    def add(self, sound: Sound, frames: int) -> AudioError | None:
        """Count frames of a sound; returns the error if that is too much."""
        error = self._error(sound, frames)
        self.seconds += frames / max(1, sound.rate)
        self.n_bytes += frames * sound.channels * 4
        return error

    def check(self, sound: Sound, frames: int) -> None:
        """Refuse what so many more frames would come to."""
        if (error := self._error(sound, frames)) is not None:
            raise error

    def _error(self, sound: Sound, frames: int) -> AudioError | None:
        limits = self.limits
        seconds = self.seconds + frames / max(1, sound.rate)
        n_bytes = self.n_bytes + frames * sound.channels * 4
        if limits.max_duration_s is not None and seconds > limits.max_duration_s:
            return AudioError(
                "duration",
                f"{seconds:.2f} s of audio or more exceed the limit of "
                f"{limits.max_duration_s:g} s; cut it into shorter parts",
                limits.max_duration_s,
                seconds,
                "s",
            )
        if limits.max_decoded_bytes is not None and n_bytes > limits.max_decoded_bytes:
            return AudioError(
                "decoded_bytes",
                f"{n_bytes} decoded bytes or more exceed the limit of "
                f"{limits.max_decoded_bytes}; cut the audio, lower its sample rate or mix it down",
                limits.max_decoded_bytes,
                n_bytes,
                "bytes",
            )
        return None


class _Selector:
    """Takes the sounds of a file one after the other and returns the selected part of them."""

    def __init__(self, limits: Limits, meter: Meter | None, selection: Selection) -> None:
        self.selection, self.meter = selection, meter
        self.mixdown = Mixdown()
        self._tally = _Tally(limits)
        self._passed_s = 0.0  # of the sounds before
        self._is_reached = False  # the end of the selection, in the sounds before

    @property
    def is_done(self) -> bool:
        """Whether the selection has ended."""
        return self.selection.end_s is not None and self._passed_s >= self.selection.end_s

    @property
    def seconds(self) -> float:
        """What was selected so far."""
        return self._tally.seconds

    def claim(self, sound: Sound) -> None:
        """Count what a sound claims to be, decoding nothing."""
        first, last = self._bounds(sound)
        frames = sound.frames or 0
        self._is_reached = last is not None and frames >= last
        self._passed_s += frames / max(1, sound.rate)
        end = frames if last is None else min(last, frames)
        error = self._tally.add(sound, max(0, end - first))
        self.check(sound)
        if error is not None:
            raise error

    def mono(self, sound: Sound) -> Iterator[NDArray[np.float32]]:
        """The selected frames of a sound, checked and of one channel: (frames,)."""
        first, last = self._bounds(sound)
        if sound.frames is not None:  # early; what is decoded is counted as well
            end = sound.frames if last is None else min(last, sound.frames)
            self._tally.check(sound, max(0, end - first))
        if self.meter is not None:
            self.meter.begin(sound)
        for block in filter(len, self._selected(sound, first, last)):
            _check_samples(block, self._passed_s + self._position / sound.rate)
            if (error := self._tally.add(sound, len(block))) is not None:
                raise error
            if self.meter is not None:
                self.meter.add(block)
            yield self._one_channel(block, sound)
        self._is_reached = last is not None and self._position >= last
        self._passed_s += self._position / sound.rate

    def check(self, sound: Sound) -> None:
        """Refuse absurd headers, and a channel that is not there."""
        _check_header(sound, self._tally.limits)
        channel = self.selection.channel
        if channel != "mix" and channel >= sound.channels:
            message = (
                f"there is no channel {channel}: the recording has {sound.channels}, counted from "
                "0; choose one of them, or mix"
            )
            raise AudioError("selection", message, sound.channels - 1, channel, "channels")

    def nothing(self) -> AudioError:
        """The error of a file that gave no samples."""
        start_s, end_s = self.selection.start_s, self.selection.end_s
        if 0 < self._passed_s <= start_s and not self._is_reached:
            message = (
                f"start_s = {start_s:g} lies behind the end: the recording lasts "
                f"{self._passed_s:.2f} s; choose an earlier start"
            )
            return AudioError("selection", message, self._passed_s, start_s, "s")
        if self._passed_s > 0 and (start_s > 0 or end_s is not None):
            last_s = self._passed_s if end_s is None else end_s
            message = (
                f"from start_s = {start_s:g} to {last_s:g} s there is no whole sample; choose an "
                "earlier start, or a later end"
            )
            return AudioError("selection", message, observed=last_s - start_s, unit="s")
        return AudioError("empty", NOTHING)

    def _bounds(self, sound: Sound) -> tuple[int, int | None]:
        """The selection in frames of this sound."""
        start_s, end_s = self.selection.start_s, self.selection.end_s
        first = max(0, round((start_s - self._passed_s) * sound.rate))
        last = None if end_s is None else max(first, round((end_s - self._passed_s) * sound.rate))
        return first, last

    def _selected(
        self, sound: Sound, first: int, last: int | None
    ) -> Iterator[NDArray[np.float32]]:
        """Blocks of the frames from `first` to `last`; the position is where a block begins."""
        self._position = min(first, sound.frames or 0) if sound.is_seekable else 0
        for block in sound.blocks(self._position):
            before = max(0, first - self._position)
            yield block[before : None if last is None else max(0, last - self._position)]
            self._position += len(block)
            if last is not None and self._position >= last:
                break

    def _one_channel(self, block: NDArray[np.float32], sound: Sound) -> NDArray[np.float32]:
        if sound.channels == 1:
            return block[:, 0]
        if self.selection.channel != "mix":
            return np.ascontiguousarray(block[:, self.selection.channel])
        mixed: NDArray[np.float32] = block.mean(axis=1)
        self.mixdown.add(block, mixed, sound.rate)
        return mixed


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
