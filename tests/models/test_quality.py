"""models/quality.py: what made signals are known to be is what the meter says."""

import io
import tracemalloc

import numpy as np
import pytest
import soxr

from models import audio
from models.containers import open_sounds
from models.formats.file import File
from models.quality import Meter, Quality
from tests.recordings import encoded, tone, wav

RATE = 44_100


def measured(data: bytes) -> Quality:
    meter = Meter()
    for _ in audio.stream(data, meter=meter):
        pass
    return meter.report()


def of(samples: np.ndarray, rate: int = RATE, kind: str = "wav-16") -> Quality:
    """The quality of samples (S,) or (S, channels) as a file."""
    samples = samples.reshape(len(samples), -1).astype(np.float32)
    return measured(encoded(kind, samples, rate))


def noise(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))


def sine(hz: float = 1_000.0, peak: float = 0.5, seconds: float = 2.0) -> np.ndarray:
    return peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def test_a_tone_has_its_own_level_and_bandwidth_and_nothing_else():
    quality = of(sine(7_500.0))
    assert quality.bandwidth_hz == pytest.approx(7_500, abs=300)
    assert quality.peak_dbfs == pytest.approx(-6.02, abs=0.05)
    assert quality.rms_dbfs == pytest.approx(-9.03, abs=0.05)
    assert quality.dc_offset == pytest.approx(0, abs=1e-4)
    assert quality.clipped_share == quality.silent_share == 0
    assert quality.warnings == []


def test_noise_reaches_up_to_half_the_rate():
    for rate in (8_000, 16_000, 44_100, 96_000):
        quality = of(noise(rate=rate), rate)
        assert quality.bandwidth_hz == pytest.approx(rate / 2, rel=0.01)
        assert quality.sample_rate == rate


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("kind", ["wav-16", "wav-float", "flac"])
def test_telephone_audio_is_recognised_when_it_was_upsampled(rate: int, kind: str):
    upsampled = soxr.resample(noise(rate=8_000), 8_000, rate)
    quality = of(upsampled, rate, kind)
    assert quality.bandwidth_hz == pytest.approx(3_900, abs=150)
    (warning,) = quality.warnings
    assert "upsampled" in warning
    assert f"{rate} Hz" in warning


def test_quiet_telephone_audio_is_recognised_above_the_rounding_to_16_bits():
    upsampled = soxr.resample(0.05 * noise(rate=8_000), 8_000, RATE)
    assert of(upsampled).bandwidth_hz == pytest.approx(3_900, abs=150)


def test_a_rate_below_what_the_model_hears_is_said():
    (warning,) = of(noise(rate=8_000), 8_000).warnings
    assert "8000 Hz" in warning
    assert "4 kHz" in warning


def test_a_low_passed_mp3_keeps_its_bandwidth_and_codec():
    quality = of(noise(), kind="mp3")
    assert (quality.container, quality.codec) == ("MP3", "MPEG_LAYER_III")
    assert quality.bandwidth_hz is not None
    assert 14_000 < quality.bandwidth_hz <= 22_050


def test_the_share_of_clipped_samples_is_that_of_the_flat_tops():
    quality = of(np.clip(sine(440.0, peak=1.5), -1, 1))
    assert quality.clipped_share == pytest.approx(1 - 2 / np.pi * np.arcsin(1 / 1.5), abs=0.01)
    assert any("clipped" in warning for warning in quality.warnings)


def test_a_tone_that_touches_full_scale_is_not_called_clipped():
    assert of(sine(440.0, peak=1.0)).clipped_share < 0.001


def test_samples_beyond_full_scale_count_as_clipped():
    assert of(sine(440.0, peak=1.2), kind="wav-float").clipped_share > 0.2


def test_floats_that_are_scaled_as_integers_are_told_to_be_scaled():
    warnings = of(sine(7_500.0, peak=20_000.0), kind="wav-float").warnings
    assert any("[-1, 1]" in warning for warning in warnings)


def test_silence_is_silent_and_has_no_level():
    quality = of(np.zeros(RATE))
    assert (quality.peak_dbfs, quality.rms_dbfs, quality.bandwidth_hz) == (None, None, None)
    assert quality.silent_share == 1
    assert quality.warnings == ["The recording is silent."]


def test_the_share_of_silence_is_that_of_the_time():
    quality = of(np.concatenate([noise(1.0), np.zeros(3 * RATE)]))
    assert quality.silent_share == pytest.approx(0.75, abs=0.03)
    assert any("75%" in w or "74%" in w or "76%" in w for w in quality.warnings)


def test_an_offset_is_that_of_the_channel_that_has_the_most():
    both = np.stack([noise() + 0.01, noise() - 0.2], axis=1)
    quality = of(both)
    assert quality.channels == 2
    assert quality.dc_offset == pytest.approx(-0.2, abs=0.005)
    assert any("zero" in warning for warning in quality.warnings)


def test_an_offset_alone_has_no_bandwidth():
    assert of(np.full(RATE, 0.25)).bandwidth_hz is None


@pytest.mark.parametrize("n_samples", [2, 400, 2_047, 2_048, 2_049])
def test_the_shortest_recordings_have_a_quality_too(n_samples: int):
    quality = of(sine()[:n_samples])
    assert quality.duration_s == pytest.approx(n_samples / RATE)
    assert np.isfinite(quality.clipped_share)


def test_blocks_of_any_size_measure_the_same():
    samples = np.stack([noise(), sine()], axis=1).astype(np.float32)
    (sound,) = open_sounds(File(io.BytesIO(encoded("wav-16", samples))))
    whole, parts = Meter(), Meter()
    whole.begin(sound)
    whole.add(samples)
    parts.begin(sound)
    for start in range(0, len(samples), 777):
        parts.add(samples[start : start + 777])
    one, other = vars(whole.report()), vars(parts.report())
    for name in ("bandwidth_hz", "silent_share", "dc_offset", "peak_dbfs", "rms_dbfs"):
        assert one[name] == pytest.approx(other[name])


def test_memory_does_not_grow_with_the_recording():
    peaks = []
    for seconds in (4, 60):
        data = wav(np.zeros(seconds * 16_000, "<i2").tobytes())
        tracemalloc.start()
        measured(data)
        peaks.append(tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20


def test_what_is_measured_does_not_change_what_is_decoded():
    data = encoded("flac", tone(2.0, channels=2))
    found = np.concatenate(list(audio.stream(data, meter=Meter())))
    np.testing.assert_array_equal(found, audio.decode(data))
