"""models/audio.py: samples are averaged, resampled and held against the limits."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import audio
from models.limits import AudioError, Limits
from tests.recordings import RATE, encoded, tone, wav


def float_wav(samples, rate=16_000):
    return wav(np.asarray(samples, "<f4").tobytes(), tag=3, bits=32, rate=rate)


def refusal(source, limits=None):
    with pytest.raises(AudioError) as caught:
        audio.decode(source, limits or Limits())
    return caught.value


# What is decoded


@pytest.mark.parametrize("kind", ["wav-24", "flac", "vorbis", "mp3"])
def test_a_path_and_its_bytes_decode_to_the_same_samples(kind, tmp_path):
    data = encoded(kind, tone(channels=2))
    path = tmp_path / "misleading.txt"
    path.write_bytes(data)
    np.testing.assert_array_equal(audio.decode(path), audio.decode(data))
    np.testing.assert_array_equal(audio.decode(str(path)), audio.decode(data))


@pytest.mark.parametrize("kind", ["wav-16", "flac", "mp3"])
def test_the_blocks_of_a_stream_are_what_decode_returns(kind):
    data = encoded(kind, tone(4.3))
    blocks = list(audio.stream(data))
    assert len(blocks) > 3
    assert all(len(block) and block.flags.c_contiguous for block in blocks)
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), audio.decode(data))


def test_resampling_in_blocks_equals_resampling_at_once():
    soxr = pytest.importorskip("soxr")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)
    at_once = soxr.resample(noise, RATE, audio.SAMPLE_RATE, quality="HQ")
    np.testing.assert_allclose(audio.decode(float_wav(noise, RATE)), at_once, atol=1e-6)


def test_channels_are_averaged():
    left, right = np.full(100, 0.5), np.full(100, -0.25)
    interleaved = np.stack([left, right], axis=1).astype("<f4").tobytes()
    samples = audio.decode(wav(interleaved, tag=3, channels=2, bits=32))
    np.testing.assert_allclose(samples, 0.125)


@pytest.mark.parametrize("n_frames", [1, 2, 399, 16_001])
def test_short_and_odd_lengths_pass(n_frames):
    assert len(audio.decode(float_wav(np.zeros(n_frames)))) == n_frames


def test_memory_does_not_grow_with_the_recording(tmp_path):
    """20 minutes in stereo are 154 MB as float32."""
    path = tmp_path / "long.wav"
    n_frames = 20 * 60 * 16_000
    path.write_bytes(wav(claimed=n_frames * 4, channels=2))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + n_frames * 4)  # a sparse file of silence
    tracemalloc.start()
    lengths = [len(block) for block in audio.stream(path)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(lengths) == n_frames
    assert max(lengths) <= 2 * audio.SAMPLE_RATE
    assert peak < 2 << 20


def test_blocks_of_many_channels_at_a_high_rate_stay_small():
    data = wav(bytes(384_000 * 8 * 2), channels=8, rate=384_000)
    assert max(map(len, audio.stream(data))) <= audio.SAMPLE_RATE


# What is refused


@pytest.mark.parametrize("kind", ["wav-16", "flac"])
def test_no_samples_are_empty(kind):
    assert refusal(encoded(kind, tone(0.0))).reason == "empty"


def test_too_few_samples_for_one_at_16_khz_are_empty():
    assert refusal(float_wav([0.5], rate=384_000)).reason == "empty"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_not_finite_are_refused(value, channels):
    samples = np.zeros((40_000, channels), "<f4")
    samples[33_000, -1] = value
    error = refusal(wav(samples.tobytes(), tag=3, channels=channels, bits=32))
    assert error.reason == "non_finite"
    assert "2.00 s" in str(error)  # the block's start


def test_absurd_amplitudes_are_refused_and_integer_scaled_floats_pass():
    error = refusal(float_wav([0.0, -1e9]))
    assert (error.reason, error.observed) == ("amplitude", pytest.approx(1e9))
    assert np.abs(audio.decode(float_wav([0.0, -32_768.0]))).max() == 32_768


@pytest.mark.parametrize("rate", [0, 1, 3_999, 384_001, 10_000_000])
def test_absurd_sample_rates_are_refused(rate):
    error = refusal(wav(bytes(2_000), rate=rate))
    assert (error.reason, error.observed, error.unit) == ("sample_rate", rate, "Hz")
    assert str(rate) in str(error)


@pytest.mark.parametrize("channels", [0, 9, 64])
def test_absurd_channel_counts_are_refused(channels):
    error = refusal(wav(bytes(128 * 100), channels=channels))
    assert (error.reason, error.observed, error.limit) == ("channels", channels, 8)


def test_a_path_that_cannot_be_read_is_refused_without_naming_it(tmp_path):
    for path in (tmp_path, tmp_path / "secret.wav"):
        error = refusal(path)
        assert error.reason == "unreadable"
        assert "secret" not in str(error)


@pytest.mark.parametrize("kind", ["wav-16", "flac", "vorbis", "mp3"])
def test_audio_beyond_the_duration_limit_is_refused_with_both_numbers(kind):
    error = refusal(encoded(kind, tone(3.0)), Limits(max_duration_s=2))
    assert (error.reason, error.limit, error.unit) == ("duration", 2, "s")
    assert error.observed is not None
    assert error.observed > 2
    assert "2 s" in str(error)


def test_audio_of_exactly_the_limit_passes():
    assert len(audio.decode(encoded("flac", tone(2.0)), Limits(max_duration_s=2))) == 32_000


def test_limits_hold_where_the_header_does_not_tell_the_length():
    data = bytearray(encoded("flac", tone(5.0, channels=2)))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    blocks = audio.stream(bytes(data), Limits(max_duration_s=2))
    assert len(next(blocks)) + len(next(blocks)) <= 2 * audio.SAMPLE_RATE
    with pytest.raises(AudioError, match="limit of 2 s"):
        next(blocks)
    assert refusal(bytes(data), Limits(max_decoded_bytes=1 << 20)).reason == "decoded_bytes"


def test_the_byte_limit_counts_all_channels():
    data = encoded("wav-16", tone(1.0, channels=4))
    n_bytes = RATE * 4 * 4
    assert len(audio.decode(data, Limits(max_decoded_bytes=n_bytes))) == audio.SAMPLE_RATE
    error = refusal(data, Limits(max_decoded_bytes=n_bytes - 1))
    assert (error.reason, error.observed, error.unit) == ("decoded_bytes", n_bytes, "bytes")


@given(
    rate=st.integers(4_000, 384_000),
    n_frames=st.integers(1, 40_000),
)
@settings(max_examples=25, deadline=None)
def test_the_resampled_length_follows_from_the_rate(rate, n_frames):
    expected = n_frames * audio.SAMPLE_RATE / rate
    if expected > 1:
        samples = audio.decode(float_wav(np.zeros(n_frames), rate))
        assert abs(len(samples) - expected) <= 1


def test_errors_survive_pickling():
    error = refusal(wav(bytes(2_000), rate=1))
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error)
    assert str(again) == str(error)


# Headers alone


@pytest.mark.parametrize(
    ("kind", "container", "codec"),
    [
        ("wav-24", "WAV", "PCM_24"),
        ("wav-float", "WAV", "FLOAT"),
        ("flac", "FLAC", "PCM_16"),
        ("vorbis", "Ogg", "VORBIS"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
def test_headers_tell_what_a_file_claims_to_be(kind, container, codec):
    header = audio.read_header(encoded(kind, tone(1.5, channels=2)))
    assert (header.container, header.codec) == (container, codec)
    assert (header.sample_rate, header.channels) == (RATE, 2)
    assert header.duration_s is None or header.duration_s == pytest.approx(1.5, abs=0.1)
    assert header.error is None


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (wav(bytes(4_000), rate=1), Limits(), "sample_rate"),
        (wav(bytes(4_000), channels=9), Limits(), "channels"),
        (wav(bytes(64_000)), Limits(max_duration_s=1.5), "duration"),
        (wav(bytes(64_000)), Limits(max_decoded_bytes=100), "decoded_bytes"),
        (wav(bytes(64_000))[:-100], Limits(), "truncated"),
        (encoded("vorbis", tone())[:-10], Limits(), "truncated"),
        (wav(b""), Limits(), "empty"),
    ],
)
def test_headers_alone_are_refused_for_what_decoding_refuses(data, limits, reason):
    error = audio.read_header(data, limits).error
    assert error is not None
    assert error.reason == reason == refusal(data, limits).reason
