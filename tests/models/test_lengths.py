"""Headers that say something else about the length than the file: read to the end, or told."""

import io
import struct

import numpy as np
import pytest
import soundfile as sf

from models import audio
from models.limits import AudioError
from models.selection import Selection
from tests.recordings import encoded, tone, wav

SAMPLES = np.random.default_rng(0).integers(-9_000, 9_000, 16_000).astype("<i2")  # a second
PCM = SAMPLES.tobytes()


def read(data: bytes) -> tuple[np.ndarray, list[str]]:
    noticed: list[str] = []
    return audio.decode(data, warn=noticed.append), noticed


def with_outer(data: bytes, size: int) -> bytes:
    return data[:4] + struct.pack("<I", size & 0xFFFFFFFF) + data[8:]


@pytest.mark.parametrize(
    "claimed",
    [0x7FFFF000, 0x7FFFF024, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB, 0xFFFFFFFE, 0],
)
@pytest.mark.parametrize("outer", [0, 36, 0xFFFFFFFF])
def test_the_placeholders_of_writers_that_cannot_seek_are_read_to_the_end(
    claimed: int, outer: int
) -> None:
    samples, noticed = read(with_outer(wav(PCM, claimed=claimed), claimed + outer))
    np.testing.assert_allclose(samples * 32_768, SAMPLES)
    assert noticed == []


def test_a_size_that_may_be_true_of_a_file_that_was_cut_is_told() -> None:
    samples, noticed = read(wav(PCM, claimed=0x90000000))
    assert len(samples) == 16_000
    assert "whether or not it was cut" in noticed[0]


def test_a_size_of_nothing_before_samples_is_not_believed() -> None:
    samples, noticed = read(wav(PCM, claimed=0))
    assert len(samples) == 16_000
    assert "counts 0.00 s" in noticed[0]


@pytest.mark.parametrize("extra", [1, 8, 44])
def test_headers_that_are_counted_in_do_not_matter_where_the_file_is_whole(extra: int) -> None:
    samples, noticed = read(wav(PCM, claimed=len(PCM) + extra))
    assert (len(samples), noticed) == (16_000, [])


@pytest.mark.parametrize("claimed", [2, 16_000, 31_980])
def test_a_header_that_was_never_written_again_is_told(claimed: int) -> None:
    samples, noticed = read(with_outer(wav(PCM, claimed=claimed), 36 + claimed))
    np.testing.assert_allclose(samples * 32_768, SAMPLES)
    assert "read as samples" in noticed[0]


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize("n_bytes", [199, 200])
def test_chunks_behind_the_samples_are_none_of_them(n_bytes: int, is_padded: bool) -> None:
    data = wav(bytes(n_bytes), bits=8) + bytes(n_bytes % 2 if is_padded else 0)
    data += b"LIST" + struct.pack("<I", 50) + bytes(50) + b"id3 " + struct.pack("<I", 9) + bytes(9)
    samples, noticed = read(data)
    assert (len(samples), noticed) == (n_bytes, [])


@pytest.mark.parametrize("name", [b"LIST", b"JUNK", b"bext", b"PAD "])
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("is_padded", [True, False])
def test_chunks_before_the_format_are_stepped_over(name: bytes, size: int, is_padded: bool) -> None:
    plain = wav(PCM)
    chunk = name + struct.pack("<I", size) + b"\1" * size + b"\0" * (size % 2 and is_padded)
    samples, noticed = read(plain[:12] + chunk + plain[12:])
    assert (len(samples), noticed) == (16_000, [])


def test_padding_to_a_block_is_no_silence() -> None:
    assert len(read(wav(PCM) + bytes(4_000))[0]) == 16_000


def test_sizes_that_wrapped_at_4_gib_are_read_to_the_end(tmp_path) -> None:
    n_bytes, rate, channels = (1 << 32) + 20_000_000, 384_000, 8
    path = tmp_path / "night.wav"
    path.write_bytes(wav(claimed=n_bytes, rate=rate, channels=channels, bits=32))
    with path.open("r+b") as file:
        file.truncate(44 + n_bytes)  # sparse
    header = audio.read_header(path)
    assert header.duration_s == pytest.approx(n_bytes / (rate * channels * 4))
    last = audio.decode(path, selection=Selection(start_s=header.duration_s - 1))
    assert len(last) == 16_000


@pytest.mark.parametrize(
    ("kind", "offset", "layout"), [("aiff", -4, ">I"), ("au", 8, ">I"), ("caf", -8, ">q")]
)
def test_a_placeholder_in_other_containers_is_read_to_the_end(
    kind: str, offset: int, layout: str
) -> None:
    data = bytearray(encoded(kind, tone(1.0, 16_000), 16_000))
    if kind == "au":
        struct.pack_into(layout, data, offset, 0xFFFFFFFF)
    elif kind == "aiff":
        struct.pack_into(layout, data, data.index(b"SSND") + 4, 0)
    else:
        struct.pack_into(layout, data, data.index(b"data") + 4, -1)
    assert len(read(bytes(data))[0]) == 16_000


@pytest.mark.parametrize("kind", ["aiff", "au", "caf", "w64", "wav-16", "wav-alaw", "rf64"])
def test_samples_that_are_missing_are_counted_in_the_refusal(kind: str) -> None:
    data = encoded(kind, tone(4.0, 16_000), 16_000)
    with pytest.raises(AudioError) as caught:
        audio.decode(data[: len(data) // 4])
    error = caught.value
    assert (error.reason, error.unit) == ("truncated", "s")
    assert error.limit == pytest.approx(4.0, abs=0.1)
    assert error.observed == pytest.approx(1.0, abs=0.1)


def test_a_streamed_wav_that_another_follows_is_split_there() -> None:
    data = wav(PCM, claimed=0xFFFFFFFF)
    samples, _ = read(data + data)
    np.testing.assert_allclose(samples * 32_768, np.concatenate([SAMPLES, SAMPLES]))


def test_an_empty_wav_with_chunks_behind_is_empty() -> None:
    data = wav(b"") + b"LIST" + struct.pack("<I", 50) + bytes(50)
    with pytest.raises(AudioError) as caught:
        audio.decode(data)
    assert caught.value.reason == "empty"


def chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content)) + content


SECOND = {
    "wav": wav(PCM) + chunk(b"data", PCM),
    "wav, something between": wav(PCM) + chunk(b"junk", bytes(10)) + chunk(b"data", PCM[:200]),
    "wav, an empty one first": wav(b"") + chunk(b"data", PCM),
    "rf64": encoded("rf64", tone(1.0, 16_000), 16_000) + chunk(b"data", PCM),
    "aiff": encoded("aiff", tone(1.0, 16_000), 16_000) + chunk(b"SSND", bytes(8) + PCM, ">"),
    "caf": encoded("caf", tone(1.0, 16_000), 16_000)
    + b"data"
    + struct.pack(">q", len(PCM) + 4)
    + bytes(4)
    + PCM,
}


@pytest.mark.parametrize("kind", SECOND)
def test_samples_in_a_second_chunk_are_not_left_out_in_silence(kind: str) -> None:
    with pytest.raises(AudioError, match="more than one chunk of samples") as caught:
        audio.decode(SECOND[kind])
    assert caught.value.reason == "corrupt"


def test_a_second_chunk_without_samples_does_not_matter() -> None:
    assert read(wav(PCM) + chunk(b"data", b""))[0].shape == (16_000,)


def test_libsndfile_writes_what_is_read(tmp_path) -> None:
    for kind in ("wav-16", "aiff", "w64"):
        data = encoded(kind, tone(1.0, 16_000), 16_000)
        expected, _ = sf.read(io.BytesIO(data), dtype="float32")
        np.testing.assert_allclose(read(data)[0], expected, atol=1e-6)
