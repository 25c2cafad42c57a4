"""How good a recording is, at its own rate: bandwidth, clipping, silence, offset and level.

Measured block by block, so that memory does not grow with the recording. Letters: `S` samples, `C`
channels, `N` frames of a spectrum, `F` its frequencies.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.formats.sound import Sound

Floats = NDArray[np.float32]

HEARD_HZ = 8_000  # what the encoders hear: half of 16 kHz
BANDWIDTH_DB = 70.0  # below the spectrum's peak, what is there counts as nothing
FLOOR_DBFS = -112.0  # nor does what lies near the rounding to 16 bits, of one frequency
SILENCE_DBFS = -60.0
FULL_SCALE = 0.99
OVERSHOOT_DBFS = 6.0  # decoders of lossy formats overshoot full scale, but not by so much

_OFFSET_BINS = 3  # frequencies that an offset spills into
CANCELLED_DB = 12.0  # that a mix lies below what channels without relation would give
CANCELLED_S = 0.5  # seconds of it that are worth a word


@dataclass(frozen=True)
class Quality:
    """What was measured of one recording, over all its channels.

    Attributes:
        bandwidth_hz: the highest frequency within 70 dB of the strongest; None of silence. Mirror
            images that linear interpolation leaves count: a telephone hides behind them.
        clipped_share: samples beyond full scale or in a flat top, as a share of all.
        silent_share: time below -60 dBFS, as a share of all.
        dc_offset: mean of the channel whose mean is farthest from 0.
        peak_dbfs: None where every sample is 0; a full-scale sine has 0.
        rms_dbfs: likewise; a full-scale sine has -3.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float
    bandwidth_hz: float | None
    clipped_share: float
    silent_share: float
    dc_offset: float
    peak_dbfs: float | None
    rms_dbfs: float | None

    @property
    def warnings(self) -> list[str]:
        """What may make the vector worth less, in words."""
        if self.silent_share > 0.999:
            return ["The recording is silent."]
        found = [self._bandwidth_warning(), self._level_warning()]
        if self.silent_share > 0.5:
            found.append(f"{self.silent_share:.0%} of the time lies below {SILENCE_DBFS:g} dBFS.")
        if abs(self.dc_offset) > 0.01:
            found.append(f"The samples are off zero by {self.dc_offset:.3f} of full scale.")
        return [warning for warning in found if warning]

    def _bandwidth_warning(self) -> str | None:
        if self.sample_rate < 2 * HEARD_HZ:
            return (
                f"The sample rate of {self.sample_rate} Hz holds nothing above "
                f"{self.sample_rate / 2000:g} kHz; the model hears up to {HEARD_HZ / 1000:g} kHz."
            )
        if self.bandwidth_hz is None or self.bandwidth_hz > 0.9 * HEARD_HZ:
            return None
        return (
            f"There is nothing above {self.bandwidth_hz / 1000:.1f} kHz, though the sample rate of "
            f"{self.sample_rate} Hz has room for it: upsampled, as from a telephone, or a sound "
            "without high frequencies."
        )

    def _level_warning(self) -> str | None:
        if self.peak_dbfs is not None and self.peak_dbfs > OVERSHOOT_DBFS:
            return f"The peak is {self.peak_dbfs:.0f} dB above full scale; scale to [-1, 1]."
        if self.clipped_share > 0.001:
            return f"{self.clipped_share:.1%} of the samples are clipped."
        if self.rms_dbfs is not None and self.rms_dbfs < -50:
            return f"The recording is very quiet: {self.rms_dbfs:.0f} dBFS."
        return None


class Mixdown:
    """Takes blocks beside their mixes, and tells where channels cancel each other."""

    def __init__(self) -> None:
        self._seconds = self._cancelled_s = 0.0
        self._channels = self._mix = 0.0  # energy of what cancels

    def add(self, block: Floats, mix: Floats, rate: int) -> None:
        """Take in a block (S, C) and its mix (S,)."""
        seconds, n_channels = len(block) / rate, block.shape[1]
        energy = float(np.square(block, dtype=np.float64).mean())
        left = float(np.square(mix, dtype=np.float64).mean())
        self._seconds += seconds
        is_heard = energy > 10 ** (SILENCE_DBFS / 10)
        if is_heard and left < energy / n_channels * 10 ** (-CANCELLED_DB / 10):
            self._cancelled_s += seconds
            self._channels += energy * seconds
            self._mix += left * seconds

    @property
    def warnings(self) -> list[str]:
        """That the mix is not what the channels are, if so."""
        if self._cancelled_s < min(CANCELLED_S, 0.1 * self._seconds) or not self._cancelled_s:
            return []
        loss = 10 * np.log10(self._channels / max(self._mix, 1e-12 * self._channels))
        return [
            f"The channels are out of phase and cancel each other in {self._cancelled_s:.2f} s of "
            f"{self._seconds:.2f} s: their mix is {loss:.0f} dB weaker than they are. Choose a "
            "channel (channel=0)."
        ]


class Meter:
    """Takes a recording's blocks and tells its quality at the end.

    A recording whose parts differ in rate or channels is measured part by part.
    """

    def __init__(self) -> None:
        self._parts: list[Quality] = []
        self._n_samples = 0

    def begin(self, sound: Sound) -> None:
        """Get ready for the blocks of `sound`."""
        if self._n_samples:
            self._parts.append(self._report())
        self.sound = sound
        self._n_fft = 1 << (sound.rate // 24 - 1).bit_length()  # frequencies 12 to 24 Hz apart
        self._rest = np.empty((sound.channels, 0), np.float32)
        self._power = np.zeros(self._n_fft // 2 + 1)  # (F,)
        self._gain = 0.0
        self._n_frames = self._n_silent = 0
        self._n_samples = self._n_clipped = 0  # samples of one channel; of all channels
        self._sum = np.zeros(sound.channels)
        self._square, self._peak = 0.0, 0.0

    def add(self, block: Floats) -> None:
        """Take in the next block (S, C) of finite samples."""
        channels = np.ascontiguousarray(block.T)  # (C, S): sums along rows are fast
        self._n_samples += len(block)
        self._n_clipped += int(_clipped(channels).sum())
        self._sum += channels.sum(axis=1, dtype=np.float64)
        self._square += float(np.square(channels).sum(dtype=np.float64))
        self._peak = max(self._peak, float(np.abs(channels).max()))
        held = np.concatenate([self._rest, channels], axis=1)
        n_whole = held.shape[1] // self._n_fft * self._n_fft
        whole = held[:, :n_whole].reshape(len(held), -1, self._n_fft)
        self._add_frames(whole, np.hanning(self._n_fft + 1)[:-1])
        self._rest = held[:, n_whole:].copy()

    def report(self) -> Quality:
        """The quality of all that was added, which is one sample at the least."""
        return _together([*self._parts, *([self._report()] if self._n_samples else [])])

    def _report(self) -> Quality:
        """The quality of the part that was begun last."""
        if not self._n_frames:  # shorter than one frame
            self._add_frames(self._rest[:, None], np.hanning(self._n_samples + 2)[1:-1])
        sound, n_values = self.sound, self._n_samples * self.sound.channels
        means = self._sum / self._n_samples
        return Quality(
            container=sound.container,
            codec=sound.codec,
            sample_rate=sound.rate,
            channels=sound.channels,
            duration_s=self._n_samples / sound.rate,
            bandwidth_hz=self._bandwidth_hz(),
            clipped_share=self._n_clipped / n_values,
            silent_share=self._n_silent / self._n_frames,
            dc_offset=float(means[np.abs(means).argmax()]),
            peak_dbfs=_decibels(self._peak**2),
            rms_dbfs=_decibels(self._square / n_values),
        )

    def _add_frames(self, frames: Floats, window: NDArray[np.float64]) -> None:
        """Count frames (C, N, S), S at most the length of a spectrum."""
        if not frames.size:
            return
        mean_squares = np.square(frames).mean(axis=2).mean(axis=0)  # (N,)
        self._n_frames += len(mean_squares)
        self._n_silent += int((mean_squares < 10 ** (SILENCE_DBFS / 10)).sum())
        spectra = np.fft.rfft(frames * window.astype(np.float32), self._n_fft)  # (C, N, F)
        power = np.square(spectra.real) + np.square(spectra.imag)
        self._power += power.mean(axis=0).sum(axis=0, dtype=np.float64)
        self._gain += len(mean_squares) * (window.sum() / 2) ** 2  # of a full-scale sine

    def _bandwidth_hz(self) -> float | None:
        level = 10 * np.log10(self._power[_OFFSET_BINS:] / self._gain + 1e-30)  # dBFS
        above = np.flatnonzero(level > max(level.max() - BANDWIDTH_DB, FLOOR_DBFS))
        if not len(above):
            return None
        return float((above[-1] + _OFFSET_BINS) * self.sound.rate / self._n_fft)


def _together(parts: list[Quality]) -> Quality:
    """The quality of parts in a row; rate and channels are those of the first."""
    if len(parts) == 1:
        return parts[0]
    seconds = np.array([part.duration_s for part in parts])
    total_s = float(seconds.sum())

    def mean(values: list[float]) -> float:
        return float(seconds @ np.array(values)) / total_s

    heard = [part.bandwidth_hz for part in parts if part.bandwidth_hz is not None]
    peaks = [part.peak_dbfs for part in parts if part.peak_dbfs is not None]
    powers = [0.0 if part.rms_dbfs is None else 10 ** (part.rms_dbfs / 10) for part in parts]
    return replace(
        parts[0],
        duration_s=total_s,
        bandwidth_hz=max(heard, default=None),
        clipped_share=mean([part.clipped_share for part in parts]),
        silent_share=mean([part.silent_share for part in parts]),
        dc_offset=max((part.dc_offset for part in parts), key=abs),
        peak_dbfs=max(peaks, default=None),
        rms_dbfs=_decibels(mean(powers)),
    )


def _decibels(power: float) -> float | None:
    """`power` relative to that of a sample of 1; None of 0."""
    return 10 * float(np.log10(power)) if power > 0 else None


def _clipped(channels: Floats) -> NDArray[np.bool_]:
    """Which samples of (C, S) lie beyond full scale, or beside an equal one close to it."""
    magnitude = np.abs(channels)
    is_flat = np.zeros(channels.shape, bool)
    equal = (channels[:, 1:] == channels[:, :-1]) & (magnitude[:, 1:] >= FULL_SCALE)
    is_flat[:, 1:] |= equal
    is_flat[:, :-1] |= equal
    clipped: NDArray[np.bool_] = is_flat | (magnitude > 1)
    return clipped
