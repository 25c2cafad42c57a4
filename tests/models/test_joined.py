"""Recordings one behind the other in a file: all of them are read, whatever lies between."""

import io
import struct
from functools import cache

import numpy as np
import pytest
import soundfile as sf

from models import audio
from models.limits import AudioError, Limits
from tests.recordings import encoded, media, tone

APE = struct.pack("<8sIIII8x", b"APETAGEX", 2_000, 42, 0, 0xA0000000) + bytes(10)
APE += struct.pack("<8sIIII8x", b"APETAGEX", 2_000, 42, 0, 0x80000000)
BETWEEN = {
    "nothing": b"",
    "ID3v1": b"TAG" + bytes(125),
    "ID3v2": b"ID3\4\0\0\0\0\1\0" + bytes(128),
    "APE": APE,
    "lyrics": b"LYRICSBEGININD0000210000030LYRICS200",
    "zeros": bytes(5_000),
}
NOISE = np.random.default_rng(0).bytes(5_000)


@cache
def parts(kind: str) -> list[bytes]:
    """A second of three files that differ in rate and channels."""
    if kind in ("adts", "m4a", "ogg-flac", "webm"):
        pytest.importorskip("av")
        names = {"adts": ("adts", "aac"), "m4a": ("mp4", "aac"), "ogg-flac": ("ogg", "flac")}
        container, codec = names.get(kind, ("webm", "libopus"))
        other = 24_000 if kind == "webm" else 44_100
        return [
            media(container, codec, rate, 1.0, layout)
            for rate, layout in ((48_000, "mono"), (other, "stereo"), (48_000, "stereo"))
        ]
    rates = (48_000, 16_000, 24_000) if kind == "opus" else (44_100, 16_000, 22_050)
    layouts = zip(rates, (1, 2, 1), strict=True)
    return [encoded(kind, tone(1.0, rate, channels), rate) for rate, channels in layouts]


JOINED = ["wav-16", "aiff", "au", "caf", "w64", "flac", "vorbis", "opus", "mp3"]
WITH_PYAV = ["adts", "m4a", "ogg-flac", "webm"]


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("kind", [*JOINED, *WITH_PYAV])
def test_three_links_of_other_rates_and_channels_are_all_read(kind: str, between: str) -> None:
    if (kind, between) == ("au", "zeros"):
        pytest.skip("AU has no chunks: zeros between two are samples")
    data = BETWEEN[between].join(parts(kind)) + BETWEEN[between]
    samples = audio.decode(data)
    assert len(samples) / audio.SAMPLE_RATE == pytest.approx(3.0, abs=0.1)
    levels = np.abs(samples[: 3 * 16_000 // 12_000 * 12_000]).reshape(-1, 12_000).max(axis=1)
    assert (levels > 0.4).all()  # the tone is everywhere
    assert audio.read_header(data).duration_s == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("kind", ["mp3", "vorbis", "flac", "m4a", "adts"])
def test_what_is_no_audio_between_two_is_skipped_and_told(kind: str) -> None:
    one, other, _ = parts(kind)
    noticed: list[str] = []
    samples = audio.decode(one + NOISE + other, warn=noticed.append)
    assert len(samples) / audio.SAMPLE_RATE == pytest.approx(2.0, abs=0.1)
    assert kind == "flac" or "5000 bytes" in noticed[0]


@pytest.mark.parametrize("first", JOINED)
@pytest.mark.parametrize("second", ["wav-16", "aiff", "au", "flac", "opus", "mp3", "m4a"])
def test_files_of_two_formats_in_a_row_are_both_read(first: str, second: str) -> None:
    data = parts(first)[0] + parts(second)[1]
    assert len(audio.decode(data)) / audio.SAMPLE_RATE == pytest.approx(2.0, abs=0.1)


def test_joined_parts_are_the_parts_in_a_row() -> None:
    for kind in ("flac", "wav-16", "vorbis", "mp3"):
        alone = np.concatenate([audio.decode(part) for part in parts(kind)])
        np.testing.assert_allclose(audio.decode(b"".join(parts(kind))), alone, atol=1e-6)


def test_limits_hold_for_all_parts_together() -> None:
    data = b"".join(parts("flac"))
    with pytest.raises(AudioError) as caught:
        audio.decode(data, Limits(max_duration_s=2.5))
    assert (caught.value.reason, caught.value.limit) == ("duration", 2.5)
    header = audio.read_header(data, Limits(max_duration_s=2.5))
    assert header.error is not None
    assert header.error.reason == "duration"


def test_a_part_that_breaks_refuses_the_whole() -> None:
    one, other, _ = parts("wav-16")
    with pytest.raises(AudioError) as caught:
        audio.decode(one + other[:-1_000])
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_an_ogg_page_that_is_missing_or_damaged_is_found(kind: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000 * 20, 1)).astype(np.float32)
    data = encoded(kind, noise, 48_000)
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    assert len(pages) > 6
    for damaged in (pages[:4] + pages[5:], [*pages[:4], pages[4][:-1] + b"\0\0", *pages[5:]]):
        with pytest.raises(AudioError) as caught:
            audio.decode(b"".join(damaged))
        assert caught.value.reason == "corrupt"
        assert 0 < (caught.value.observed or 0) < 19


def test_an_ogg_without_an_end_is_said_to_be_perhaps_cut() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000 * 20, 1)).astype(np.float32)
    data = encoded("vorbis", noise, 48_000)
    noticed: list[str] = []
    samples = audio.decode(data[: data.rindex(b"OggS")], warn=noticed.append)
    assert len(samples) > 16_000
    assert "no end mark" in noticed[0]


def ogg_checksum(page: bytes) -> int:
    """CRC-32 of an Ogg page, bit by bit (RFC 3533, section 6)."""
    register = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_an_ogg_whose_end_is_stated_a_little_late_is_read_to_its_last_packet(kind: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000 * 5, 1)).astype(np.float32)
    data = encoded(kind, noise, 48_000)
    last = data.rindex(b"OggS")
    (granule,) = struct.unpack_from("<q", data, last + 6)

    def ending_later(seconds: float) -> bytes:
        page = bytearray(data[last:])
        struct.pack_into("<q", page, 6, granule + round(48_000 * seconds))
        struct.pack_into("<I", page, 22, ogg_checksum(bytes(page)))
        return data[:last] + bytes(page)

    assert ending_later(0) == data
    for seconds in (0.0002, 0.13):
        samples = audio.decode(ending_later(seconds))
        np.testing.assert_array_equal(samples[:79_000], audio.decode(data)[:79_000])
    with pytest.raises(AudioError) as caught:
        audio.decode(ending_later(1.0))
    assert caught.value.reason == "truncated"


def test_two_soundtracks_side_by_side_in_ogg_are_refused() -> None:
    one, other = ([b"OggS" + p for p in data.split(b"OggS")[1:]] for data in parts("vorbis")[:2])
    serial = bytes(3) + b"\x09"
    renumbered = [_renumbered(page, serial) for page in other]
    data = one[0] + renumbered[0] + b"".join(one[1:] + renumbered[1:])
    with pytest.raises(AudioError) as caught:
        audio.decode(data)
    assert "2 soundtracks" in str(caught.value)


def _renumbered(page: bytes, serial: bytes) -> bytes:
    return page[:14] + serial + page[18:]


def test_a_flac_whose_header_counts_too_little_is_read_to_the_end() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (64_000, 1)).astype(np.float32)
    data = bytearray(encoded("flac", noise, 16_000))
    data[22:26] = struct.pack(">I", 16_000)
    noticed: list[str] = []
    np.testing.assert_allclose(
        audio.decode(bytes(data), warn=noticed.append), noise[:, 0], atol=1e-4
    )
    assert "counts 1.00 s, and 4.00 s are there" in noticed[0]


def test_an_mp3_whose_header_counts_too_little_is_read_to_the_end() -> None:
    data = bytearray(encoded("mp3", tone(4.0)))
    place = data.index(b"Info") if b"Info" in data else data.index(b"Xing")
    data[place + 8 : place + 12] = struct.pack(">I", 20)
    noticed: list[str] = []
    samples = audio.decode(bytes(data), warn=noticed.append)
    assert len(samples) / audio.SAMPLE_RATE == pytest.approx(4.0, abs=0.1)
    assert "all of it was read" in noticed[0]


@pytest.mark.parametrize("n_zeros", [1, 2_000, 60_000])
@pytest.mark.parametrize("kind", ["mp3", "flac", "vorbis", "wav-16", "m4a"])
def test_zeros_before_the_beginning_are_stepped_over(kind: str, n_zeros: int) -> None:
    data = parts(kind)[0]
    np.testing.assert_array_equal(audio.decode(bytes(n_zeros) + data), audio.decode(data))


def test_an_mp3_that_begins_inside_a_frame_is_found() -> None:
    data = encoded("mp3", tone(3.0))
    second = data.index(data[:2], 4)
    samples = audio.decode(NOISE[:300] + data[second + 100 :])
    assert len(samples) / audio.SAMPLE_RATE == pytest.approx(3.0, abs=0.15)


def test_two_tracks_of_a_movie_are_said_to_be_one_too_many() -> None:
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        tracks = [out.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        for track in tracks:
            packed = np.ascontiguousarray(tone(1.0, 48_000).reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, "flt", "mono")
            frame.sample_rate, frame.pts = 48_000, 0
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    noticed: list[str] = []
    audio.decode(file.getvalue(), warn=noticed.append)
    assert noticed == ["The m4a file holds 2 audio tracks; the first was read."]


def test_what_sits_behind_the_last_recording_is_named() -> None:
    noticed: list[str] = []
    audio.decode(parts("mp3")[0] + NOISE, warn=noticed.append)
    assert noticed == ["5000 bytes behind a recording are no audio that is known: not read."]


def test_soundfile_alone_would_have_read_less() -> None:
    """The kinds above are real: the library under this one stops at the first part."""
    for kind in ("flac", "vorbis"):
        read, rate = sf.read(io.BytesIO(b"".join(parts(kind))))
        assert len(read) / rate == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", [119, 434, 565, 676, 754, 1233, 1966, 2100, 2337, 2765])
def test_a_checksum_that_ends_in_zeros_is_no_end_before_them(seed: int) -> None:
    """Seeds of clips whose last block's running checksum is 0 before its end."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(2000, 4000))
    samples = np.cumsum(generator.normal(0, 0.002, n)) * np.hanning(n)
    file = io.BytesIO()
    sf.write(file, samples, 8_000, format="FLAC", subtype="PCM_16")
    once = file.getvalue()
    for padding in (b"", bytes(1), bytes(2), bytes(5_000)):
        assert len(audio.decode(once + padding)) == pytest.approx(2 * n, abs=4)
        assert len(audio.decode(2 * (once + padding))) == pytest.approx(4 * n, abs=8)
