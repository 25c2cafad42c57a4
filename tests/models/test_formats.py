"""Every format that is read: the table in docs/formats.md, each with a file made for it."""

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from models import audio
from models.containers import FORMATS, MEDIA_FORMATS, SUFFIXES
from models.limits import AudioError
from tests.recordings import (
    FIXTURES,
    KINDS,
    MEDIA,
    MEDIA_KINDS,
    PHONES,
    TONE_HZ,
    encoded,
    every_kind,
    tone,
    wav,
)

ALL = sorted({*KINDS, *MEDIA_KINDS, *MEDIA, *PHONES})
PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


@cache
def files() -> dict[str, bytes]:
    pytest.importorskip("av")
    return every_kind()


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * audio.SAMPLE_RATE / len(samples))


def refusal(data: bytes) -> AudioError:
    with pytest.raises(AudioError) as caught:
        audio.decode(data)
    return caught.value


@pytest.mark.parametrize("kind", ALL)
def test_a_second_of_a_tone_is_a_second_of_that_tone(kind: str) -> None:
    samples = audio.decode(files()[kind])
    assert len(samples) / audio.SAMPLE_RATE == pytest.approx(1.0, abs=0.05)
    assert pitch(samples) == pytest.approx(TONE_HZ, abs=2)
    assert 0.2 < np.abs(samples[4_000:-4_000]).max() < 0.8  # AAC overshoots


@pytest.mark.parametrize("kind", [*KINDS, "alac-caf", "alac", "ogg-flac"])
def test_no_sample_is_lost_where_the_format_counts_them(kind: str) -> None:
    data = files()[kind]
    lengths = {len(audio.decode(data)), round(audio.read_header(data).duration_s or 0) * 16_000}
    assert lengths == {16_000}


@pytest.mark.parametrize("kind", ALL)
def test_two_files_in_a_row_are_read_to_the_end(kind: str) -> None:
    data = files()[kind]
    once = len(audio.decode(data))
    assert len(audio.decode(data + data)) == pytest.approx(2 * once, abs=1_600)


@pytest.mark.parametrize("kind", [kind for kind in ALL if not kind.startswith("amr")])
def test_half_a_file_is_refused_or_said_to_be_perhaps_cut(kind: str) -> None:
    data, noticed = files()[kind], list[str]()
    try:
        audio.decode(data[: len(data) // 2], warn=noticed.append)
    except AudioError as error:
        noticed.append(error.reason)
    assert noticed[-1] in ("truncated", "corrupt") or "may have been cut" in noticed[0]


@pytest.mark.parametrize("kind", ["aiff", "aifc-float", "au", "au-ulaw", "caf", "w64", "wav-alaw"])
def test_samples_are_those_that_libsndfile_reads(kind: str) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (5_000, 2)).astype(np.float32)
    data = encoded(kind, noise, 16_000)
    expected, _ = sf.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(audio.decode(data), expected.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("kind", ["wav-ima", "wav-ms"])
def test_adpcm_is_what_libsndfile_makes_of_it(kind: str) -> None:
    pytest.importorskip("av")
    data = encoded(kind, tone(1.0, 16_000, 2), 16_000)
    expected, _ = sf.read(io.BytesIO(data), dtype="float32")
    decoded = audio.decode(data)
    np.testing.assert_allclose(decoded, expected.mean(axis=1)[: len(decoded)], atol=2e-3)


@pytest.mark.parametrize(("justified", "shift"), [("left", 8), ("right", 0)])
def test_24_bits_in_four_bytes_are_read_on_whichever_side_they_lie(
    justified: str, shift: int
) -> None:
    values = np.random.default_rng(0).integers(-(1 << 23), 1 << 23, 1_000)
    data = bytearray(wav((values << shift).astype("<i4").tobytes(), bits=24))
    data[32] = 4
    np.testing.assert_allclose(audio.decode(bytes(data)), values / 2**23, atol=1e-6)


def test_amr_of_a_type_that_does_not_exist_is_damaged() -> None:
    pytest.importorskip("av")
    data = bytearray((FIXTURES / PHONES["amr"]).read_bytes())
    data[6 + 32 * 20] = 12 << 3
    error = refusal(bytes(data))
    assert (error.reason, error.observed) == ("corrupt", pytest.approx(0.4))


def test_a_wav_header_of_adpcm_does_not_reach_a_decoder() -> None:
    """FFmpeg is given a header of ours: a forged one is refused by its numbers."""
    data = bytearray(encoded("wav-ima", tone(0.5, 16_000), 16_000))
    for block_bytes in (0, 3, 4, 65_535):
        struct.pack_into("<H", data, 32, block_bytes)
        assert refusal(bytes(data)).reason == "unsupported"


def test_the_page_lists_every_format_and_suffix() -> None:
    page = PAGE.read_text()
    for name in (*FORMATS, *MEDIA_FORMATS, *SUFFIXES):
        assert name in page, name
