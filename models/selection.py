"""The part of a recording that is chosen: taken out of its sounds, checked, as one channel."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.formats.sound import Sound
from models.limits import NOTHING, AudioError, Limits, Tally, check_header, check_samples
from models.quality import Meter, Mixdown

MAX_CHANNEL = 255  # the highest number of a channel that may be chosen
MAX_TIME_S = 1e7  # four months; the latest time that may be chosen


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


class Selector:
    """Takes the sounds of a file one after the other and returns the selected part of them."""

    def __init__(self, limits: Limits, meter: Meter | None, selection: Selection) -> None:
        self.selection, self.meter = selection, meter
        self.mixdown = Mixdown()
        self._tally = Tally(limits)
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
            check_samples(block, self._passed_s + self._position / sound.rate)
            if (error := self._tally.add(sound, len(block))) is not None:
                raise error
            if self.meter is not None:
                self.meter.add(block)
            yield self._one_channel(block, sound)
        self._is_reached = last is not None and self._position >= last
        self._passed_s += self._position / sound.rate

    def check(self, sound: Sound) -> None:
        """Refuse absurd headers, and a channel that is not there."""
        check_header(sound, self._tally.limits)
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
