"""models/containers.py: what is decoded, what is refused, and what the refusal says."""

import contextlib
import io
import struct
import sys

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from models import audio
from models.limits import AudioError, Limits
from tests import recordings
from tests.recordings import KINDS, RATE, TONE_HZ, encoded, tone, wav


def media(container, codec, **how):
    pytest.importorskip("av")
    return recordings.media(container, codec, **how)


def peak_frequency(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * audio.SAMPLE_RATE / len(samples)


def refusal(source, limits=None):
    with pytest.raises(AudioError) as caught:
        audio.decode(source, limits or Limits())
    return caught.value


# What is decoded


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_keeps_the_pitch_and_the_length_of_a_tone(kind):
    rate = 48_000 if kind == "opus" else RATE
    samples = audio.decode(encoded(kind, tone(1.5, rate, channels=2), rate))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) / audio.SAMPLE_RATE - 1.5) < 0.003
    assert abs(peak_frequency(samples) - TONE_HZ) < 1
    assert np.abs(samples[4_000:-4_000]).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("container", "codec", "tolerance_s"),
    [("mp4", "aac", 0.03), ("ipod", "alac", 0.003), ("webm", "libopus", 0.01)],
)
def test_m4a_and_webm_keep_the_pitch_and_the_length_of_a_tone(container, codec, tolerance_s):
    samples = audio.decode(media(container, codec))
    assert abs(len(samples) / audio.SAMPLE_RATE - 1) < tolerance_s
    assert abs(peak_frequency(samples) - TONE_HZ) < 2


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1"])
def test_m4a_of_many_channels_is_averaged(layout):
    """PyAV itself reads beyond the planes of eight channels, and may crash."""
    samples = audio.decode(media("mp4", "aac", layout=layout))
    assert 0.4 < np.abs(samples[4_000:-4_000]).max() < 0.55  # a low-frequency channel holds no tone


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith(("wav", "rf64"))])
def test_wav_samples_are_those_that_libsndfile_reads(kind):
    noise = np.random.default_rng(0).uniform(-1, 1, (5_000, 1)).astype(np.float32)
    data = encoded(kind, noise, 16_000)
    expected, _ = sf.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(audio.decode(data), expected, atol=1e-7)


@pytest.mark.parametrize("start", [b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3\4\0\0\0\0\0\x10"])
def test_samples_that_look_like_a_header_are_still_samples(start):
    data = start.ljust(200, b"\1")
    expected = np.frombuffer(data, "<i2").astype(np.float32) / 32_768
    np.testing.assert_array_equal(audio.decode(wav(data)), expected)


def test_chunks_after_the_data_are_not_samples():
    after = b"LIST" + struct.pack("<I", 50) + bytes(50)
    assert len(audio.decode(wav(bytes(200)) + after)) == 100


def test_unknown_chunks_with_odd_sizes_are_stepped_over():
    extra = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    assert len(audio.decode(wav(bytes(200), extra=extra))) == 100


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF])
def test_a_wav_whose_writer_could_not_seek_back_is_read_to_its_end(claimed):
    data = bytearray(wav(bytes(200), claimed=claimed))
    data[4:8] = struct.pack("<I", claimed)
    assert len(audio.decode(bytes(data))) == 100


def test_a_flac_of_unknown_length_is_read_to_its_end():
    data = bytearray(encoded("flac", tone(2.0)))
    data[21] &= 0xF0  # the 36 bits of total_samples
    data[22:26] = bytes(4)
    assert len(audio.decode(bytes(data))) == 2 * audio.SAMPLE_RATE


def test_id3_tags_do_not_hide_an_mp3():
    data = encoded("mp3", tone())
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    np.testing.assert_array_equal(audio.decode(tag + data), audio.decode(data))


# What is refused


@pytest.mark.parametrize(
    "data",
    [b"hello, world", b"\0" * 100, b"RIFF\0\0\0\0AVI ", b"FORM\0\0\0\0ILBM", b"ID3", b"\xff\xff"],
)
def test_unknown_bytes_are_refused_with_a_list_of_what_is_accepted(data):
    error = refusal(data)
    assert error.reason == "unsupported"
    assert "FLAC" in str(error)
    assert "m4a" in str(error)


@pytest.mark.parametrize("tag", [0x02, 0x11, 0x31, 0x55])
def test_compressed_wav_whose_blocks_make_no_sense_is_refused(tag):
    assert refusal(wav(bytes(200), tag=tag)).reason == "unsupported"


def test_an_extensible_wav_of_another_codec_is_refused():
    data = bytearray(encoded("wav-extensible", tone()))
    guid = data.index(bytes.fromhex("000000001000800000aa00389b71"))
    data[guid - 2] = 0x11
    assert refusal(bytes(data)).reason == "unsupported"


def test_a_second_format_chunk_is_refused():
    extra = b"fmt " + struct.pack("<IHHIIHH", 16, 0x11, 1, 16_000, 8_000, 1, 4)
    assert refusal(wav(bytes(200), extra=extra)).reason == "corrupt"


def test_frames_that_contradict_their_channels_are_refused():
    data = bytearray(wav(bytes(200)))
    data[32] = 7
    assert refusal(bytes(data)).reason == "corrupt"


def test_a_wav_without_samples_in_its_first_thousand_chunks_is_refused():
    data = b"RIFF\0\0\0\0WAVE" + (b"junk" + bytes(4)) * 5_000
    assert refusal(data).reason == "truncated"


@pytest.mark.parametrize("codec", [b"Speex   ", b"\x80theora", b"fishead\0"])
def test_other_codecs_inside_ogg_are_refused(codec):
    page = b"OggS\0\2" + bytes(20) + bytes([1, 8]) + codec
    assert refusal(page).reason == "unsupported"


def test_no_bytes_are_empty():
    assert refusal(b"").reason == "empty"


def test_a_wav_cut_short_says_after_how_many_seconds():
    data = encoded("wav-16", tone(4.0))
    error = refusal(data[: 44 + (len(data) - 44) // 4])
    assert error.reason == "truncated"
    assert (error.observed, error.limit) == (pytest.approx(1.0), pytest.approx(4.0))
    assert error.unit == "s"
    assert "1.00 s of 4.00 s" in str(error)


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_a_stream_cut_short_says_after_how_many_seconds(kind):
    data = encoded(kind, tone(4.0))
    error = refusal(data[: len(data) // 2])
    assert error.reason in ("truncated", "corrupt")
    assert error.limit == pytest.approx(4.0)
    assert error.observed == pytest.approx(2.0, abs=0.4)


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_an_ogg_cut_inside_a_page_is_truncated(kind):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000 * 10, 1)).astype(np.float32)
    data = encoded(kind, samples, 48_000)
    error = refusal(data[: len(data) * 2 // 3])
    assert error.reason == "truncated"
    assert error.observed is not None
    assert 2 < error.observed < 7


def test_a_webm_cut_short_is_truncated():
    data = media("webm", "libopus", seconds=4.0)
    error = refusal(data[: len(data) // 2])
    assert error.reason == "truncated"
    assert error.limit == pytest.approx(4.0, abs=0.1)


def test_an_m4a_without_its_index_is_corrupt():
    data = media("mp4", "aac")
    assert refusal(data[: len(data) // 2]).reason == "corrupt"


def test_damage_in_the_middle_of_a_flac_is_found_where_it_is():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (64_000, 1)).astype(np.float32)
    data = bytearray(encoded("flac", noise, 16_000))
    data[len(data) // 2 : len(data) // 2 + 2_000] = bytes(2_000)
    error = refusal(bytes(data))
    assert error.reason == "corrupt"
    assert error.observed == pytest.approx(2.0, abs=0.5)


def test_an_mp3_of_varying_bit_rate_without_a_length_is_not_silently_cut():
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE // 2, 1)).astype(np.float32)
    data = encoded("mp3", np.concatenate([loud, tone(6.0) * 0.01]))
    second_frame = data.index(data[:2], 4)  # the first one holds the length
    assert len(audio.decode(data[second_frame:])) / audio.SAMPLE_RATE == pytest.approx(6.5, abs=0.1)


def test_a_double_beyond_float32_is_refused():
    assert refusal(wav(np.full(10, 1e300).tobytes(), tag=3, bits=64)).reason == "non_finite"


def test_messages_hold_no_text_of_a_library():
    for kind in ("flac", "vorbis", "mp3"):
        data = encoded(kind, tone())
        for end in (40, len(data) // 2):
            assert "0x" not in str(refusal(data[:end]))


def test_m4a_without_pyav_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    error = refusal(b"\0\0\0\x1cftypM4A " + bytes(100))
    assert error.reason == "unsupported"
    assert "pip install 'viola-audio[media]'" in str(error)


# Whatever comes


@pytest.fixture(scope="module")
def corpus():
    """A short file of each format."""
    kinds = ["wav-16", "wav-24", "wav-extensible", "rf64", "flac", "vorbis", "opus", "mp3"]
    files = {kind: encoded(kind, tone(0.4, 48_000, channels=2), 48_000) for kind in kinds}
    try:
        files["m4a"] = media("mp4", "aac", seconds=0.4)
        files["webm"] = media("webm", "libopus", seconds=0.4)
    except pytest.skip.Exception:
        pass  # without PyAV the other formats are still worth it
    return files


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_raises_anything_but_an_audio_error(corpus, data):
    damaged = bytearray(corpus[data.draw(st.sampled_from(sorted(corpus)), "kind")])
    last = data.draw(st.sampled_from([200, len(damaged)]), "flips below") - 1
    for _ in range(data.draw(st.integers(0, 8), "flips")):
        damaged[data.draw(st.integers(0, last))] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.sampled_from([len(damaged), None]), "end")
    end = data.draw(st.integers(0, len(damaged))) if end is None else end
    limits = Limits(max_duration_s=10, max_decoded_bytes=1 << 24)
    with contextlib.suppress(AudioError):
        samples = audio.decode(bytes(damaged[:end]), limits, warn=lambda sentence: None)
        assert 0 < len(samples) <= 10 * audio.SAMPLE_RATE + 1
        assert np.isfinite(samples).all()
