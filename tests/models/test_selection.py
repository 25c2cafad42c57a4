"""Which part of a recording is meant: a channel, and from when to when."""

import numpy as np
import pytest

from models import audio
from models.limits import AudioError, Limits
from models.quality import Meter
from models.selection import WHOLE, Selection
from tests.recordings import encoded, tone, wav

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (64_000, 2)).astype(np.float32)


def refused(**selected: object) -> AudioError:
    with pytest.raises(AudioError) as caught:
        Selection(**selected)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("kind", ["wav-float", "flac", "aiff", "caf", "w64", "wav-24"])
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (1.25, 2.5), (3.0, None), (3.9, 99.0)])
def test_a_part_is_what_stands_there(kind: str, start_s: float, end_s: float | None) -> None:
    data = encoded(kind, NOISE, 16_000)
    part = audio.decode(data, selection=Selection(start_s=start_s, end_s=end_s))
    first, last = round(start_s * 16_000), None if end_s is None else round(end_s * 16_000)
    np.testing.assert_array_equal(part, audio.decode(data)[first:last])


@pytest.mark.parametrize("channel", [0, 1])
def test_one_channel_is_that_channel(channel: int) -> None:
    data = encoded("wav-float", NOISE, 16_000)
    samples = audio.decode(data, selection=Selection(channel=channel))
    np.testing.assert_array_equal(samples, NOISE[:, channel])


def test_a_part_may_span_recordings_of_other_rates() -> None:
    links = [encoded("flac", tone(1.0, rate), rate) for rate in (44_100, 16_000, 22_050)]
    selection = Selection(start_s=0.5, end_s=2.5)
    samples = audio.decode(b"".join(links), selection=selection)
    assert len(samples) / 16_000 == pytest.approx(2.0, abs=0.001)
    assert audio.read_header(b"".join(links), selection=selection).duration_s == pytest.approx(2.0)


def test_limits_are_those_of_the_part() -> None:
    data = encoded("flac", NOISE, 16_000)
    limits = Limits(max_duration_s=1)
    selection = Selection(start_s=2.0, end_s=3.0)
    assert len(audio.decode(data, limits, selection)) == 16_000
    assert audio.read_header(data, limits, selection).error is None
    with pytest.raises(AudioError):
        audio.decode(data, limits, Selection(start_s=2.0))


@pytest.mark.parametrize("kind", ["flac", "wav-16", "vorbis"])
@pytest.mark.parametrize("start_s", [4.0, 4.5, 1e6])
def test_a_start_behind_the_end_says_where_the_end_is(kind: str, start_s: float) -> None:
    selection = Selection(start_s=start_s)
    data = encoded(kind, NOISE, 16_000)
    with pytest.raises(AudioError) as caught:
        audio.decode(data, selection=selection)
    error = caught.value
    assert (error.reason, error.observed, error.unit) == ("selection", start_s, "s")
    assert error.limit == pytest.approx(4.0)
    header = audio.read_header(data, selection=selection)
    assert header.error is not None
    assert header.error.args == error.args


@pytest.mark.parametrize("kind", ["flac", "wav-16", "vorbis", "caf"])
@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0.0, 1e-7), (2.0, 2.000001), (3.99999, None), (3.99999, 9.0)]
)
def test_a_part_without_a_sample_is_no_fault_of_the_file(
    kind: str, start_s: float, end_s: float | None
) -> None:
    selection = Selection(start_s=start_s, end_s=end_s)
    data = encoded(kind, NOISE, 16_000)
    with pytest.raises(AudioError, match="there is no whole sample") as caught:
        audio.decode(data, selection=selection)
    assert caught.value.reason == "selection"
    header = audio.read_header(data, selection=selection)
    assert header.error is not None
    assert header.error.args == caught.value.args


def test_a_channel_that_is_not_there_says_how_many_there_are() -> None:
    with pytest.raises(AudioError) as caught:
        audio.decode(encoded("flac", NOISE, 16_000), selection=Selection(channel=2))
    assert (caught.value.reason, caught.value.limit) == ("selection", 1)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e8])
@pytest.mark.parametrize("name", ["start_s", "end_s"])
def test_times_that_are_none_are_refused(name: str, value: float) -> None:
    assert refused(**{name: value}).reason == "selection"


def test_an_end_before_the_start_and_a_channel_below_0_are_refused() -> None:
    assert refused(start_s=2.0, end_s=2.0).limit == 2.0
    assert refused(channel=-1).unit == "channels"


def test_what_lies_behind_the_part_is_not_looked_at() -> None:
    data = bytearray(encoded("flac", NOISE, 16_000))
    data[-20_000:] = bytes(20_000)
    assert len(audio.decode(bytes(data), selection=Selection(end_s=1.0))) == 16_000


# What is noticed


def noticed(samples: np.ndarray, selection: Selection = WHOLE) -> list[str]:
    found: list[str] = []
    audio.decode(encoded("wav-float", samples, 16_000), selection=selection, warn=found.append)
    return found


def test_channels_that_cancel_each_other_are_told() -> None:
    left = NOISE[:, 0]
    (sentence,) = noticed(np.stack([left, -left], axis=1))
    assert "4.00 s of 4.00 s" in sentence
    assert "channel=0" in sentence
    assert noticed(np.stack([left, -0.9 * left], axis=1))
    assert noticed(np.stack([left, -left], axis=1), Selection(channel=1)) == []


def test_cancelling_in_a_part_of_the_time_is_told() -> None:
    both = NOISE[:, :1].repeat(2, axis=1)
    both[16_000:32_000, 1] *= -1
    (sentence,) = noticed(both)
    assert "1.00 s of 4.00 s" in sentence


@pytest.mark.parametrize("n_channels", [2, 8])
def test_ordinary_channels_are_not_told(n_channels: int) -> None:
    random = np.random.default_rng(1).uniform(-0.5, 0.5, (32_000, n_channels)).astype(np.float32)
    assert noticed(random) == []
    alone = np.zeros_like(random)
    alone[:, 0] = random[:, 0]
    assert noticed(alone) == []
    assert noticed(np.zeros_like(random)) == []


def test_a_warning_of_python_is_what_nobody_asked_for_comes_as() -> None:
    left = NOISE[:, 0]
    data = encoded("wav-float", np.stack([left, -left], axis=1), 16_000)
    with pytest.warns(audio.AudioWarning, match="out of phase"):
        audio.decode(data)


def test_the_quality_of_parts_is_measured_together() -> None:
    meter = Meter()
    loud = wav(np.full(16_000, 16_000, "<i2").tobytes())
    for _ in audio.stream(loud + encoded("flac", tone(3.0, 44_100, 2), 44_100), meter=meter):
        pass
    quality = meter.report()
    assert quality.duration_s == pytest.approx(4.0)
    assert quality.dc_offset == pytest.approx(16_000 / 32_768, abs=0.01)
    assert (quality.container, quality.channels) == ("WAV", 1)
