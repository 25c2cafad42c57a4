"""Which audio is refused, whatever it says: limits of its headers, its amount and its samples.

Shapes: S samples, C channels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.formats.sound import Sound

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


def check_header(sound: Sound, limits: Limits) -> None:
    """Refuse absurd headers.

    Raises:
        AudioError: a sample rate or a number of channels beyond the limits.
    """
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


class Tally:
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


def check_samples(block: NDArray[np.float32], start_s: float) -> None:
    """Refuse samples (S, C) that are no sound; the block begins at `start_s` seconds.

    Raises:
        AudioError: one is not finite, or absurdly large.
    """
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
