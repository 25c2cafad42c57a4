"""Files made to hurt a decoder: each is refused, or read, at a small cost.

The attacks are those found in the wild on servers that decode audio: decompression bombs, forged
headers, formats whose decoders have corrupted memory, samples that poison an index.
"""

import gzip
import io
import struct
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile as sf

from service.problems import PROBLEM_TYPES
from tests import recordings
from tests.service.audio.test_decoder import children
from tests.service.conftest import Serve, encoded, tone

URL = "/v1/audio/embeddings"
MOST_MIB = 200  # resident memory of a decoder at its worst
MOST_S = 15  # what any attack may take, on a busy machine


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[httpx.Client]:
    """The service with the limits that it ships with, and one decoder to watch."""
    with serve(decode_workers=1) as client:
        yield client


def peak_mib() -> float:
    """The largest that a decoder has been."""
    statuses = [(Path("/proc") / str(pid) / "status").read_text() for pid in children()]
    lines = [line for status in statuses for line in status.splitlines() if "VmHWM" in line]
    return max(int(line.split()[1]) for line in lines) / 1024


def attack(service: httpx.Client, data: bytes, slug: str) -> dict:
    """Send a file and get the refusal that it has to meet, quickly and in little memory."""
    started = time.monotonic()
    answer = service.post(URL, content=data)
    document: dict = answer.json()
    assert document["type"] == f"/problems/{slug}", document
    assert answer.status_code == PROBLEM_TYPES[slug].status < 500
    assert time.monotonic() - started < MOST_S
    assert peak_mib() < MOST_MIB
    return document


def silence(seconds: int, rate: int, channels: int, kind: tuple[str, str]) -> bytes:
    """A long file of nothing, written a second at a time."""
    file = io.BytesIO()
    with sf.SoundFile(file, "w", rate, channels, kind[1], format=kind[0]) as out:
        for _ in range(seconds):
            out.write(np.zeros((rate, channels), np.int16))
    return file.getvalue()


def with_flac_header(data: bytes, *, rate: int | None = None, frames: int | None = None) -> bytes:
    """A FLAC file whose STREAMINFO says something else: 20 bits of rate, 36 of samples."""
    fields = int.from_bytes(data[18:26], "big")
    if rate is not None:
        fields = fields & ~(0xFFFFF << 44) | rate << 44
    if frames is not None:
        fields = fields & ~((1 << 36) - 1) | frames
    return data[:18] + fields.to_bytes(8, "big") + data[26:]


def test_an_hour_of_silence_in_few_bytes_is_refused_for_its_length(service: httpx.Client) -> None:
    bomb = silence(3600, 16_000, 1, ("FLAC", "PCM_16"))
    assert len(bomb) < 400_000
    document = attack(service, bomb, "too-long")
    assert (document["limit"], document["observed"], document["unit"]) == (600, 3600, "s")


def test_a_length_that_lies_is_found_out_while_decoding(service: httpx.Client) -> None:
    bomb = with_flac_header(silence(900, 16_000, 1, ("FLAC", "PCM_16")), frames=0)
    assert attack(service, bomb, "too-long")["observed"] < 700  # stopped there


def test_many_channels_at_a_high_rate_are_refused_for_their_bytes(service: httpx.Client) -> None:
    bomb = silence(90, 192_000, 8, ("FLAC", "PCM_16"))
    document = attack(service, bomb, "decoded-too-large")
    assert document["limit"] == 256 << 20 < document["observed"]


@pytest.mark.parametrize("rate", [1, 8, 3_999])
def test_a_rate_forged_down_does_not_explode_in_the_resampler(
    service: httpx.Client, rate: int
) -> None:
    bomb = recordings.wav(bytes(4_000), rate=rate)
    assert attack(service, bomb, "sample-rate")["limit"] == 4_000


def test_a_rate_forged_up_is_refused(service: httpx.Client) -> None:
    forged = with_flac_header(encoded(tone(), kind="FLAC"), rate=655_350)
    assert attack(service, forged, "sample-rate")["limit"] == 384_000


def test_a_flac_that_does_not_know_its_length_is_read(service: httpx.Client) -> None:
    file = with_flac_header(encoded(tone(), kind="FLAC"), frames=0)
    assert service.post(URL, content=file).json()["data"][0]["duration_s"] == 1.0


@pytest.mark.parametrize("claimed", [1 << 31, (1 << 32) - 2, 1_000_000])
def test_a_chunk_that_claims_gigabytes_allocates_none(service: httpx.Client, claimed: int) -> None:
    attack(service, recordings.wav(bytes(64), claimed=claimed), "truncated")


@pytest.mark.parametrize(("tag", "bits"), [(0x11, 4), (0x02, 4), (0x31, 0), (0x06, 8), (0x01, 7)])
def test_codecs_that_have_corrupted_memory_never_reach_their_decoder(
    service: httpx.Client, tag: int, bits: int
) -> None:
    attack(service, recordings.wav(bytes(2_000), tag=tag, bits=bits), "unsupported-format")


def test_an_extensible_header_hides_no_other_codec(service: httpx.Client) -> None:
    guid = struct.pack("<HHI", 22, 16, 0) + struct.pack("<H", 0x11) + audio_guid_tail()
    layout = struct.pack("<HHIIHH", 0xFFFE, 1, 16_000, 32_000, 2, 16) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data\x04\0\0\0\0\0\0\0"
    file = b"RIFF" + struct.pack("<I", len(body)) + body
    attack(service, file, "unsupported-format")


def audio_guid_tail() -> bytes:
    return bytes.fromhex("000000001000800000aa00389b71")


@pytest.mark.parametrize(
    ("value", "slug"),
    [(np.nan, "non-finite"), (np.inf, "non-finite"), (1e38, "amplitude"), (-1e38, "amplitude")],
)
def test_samples_that_would_poison_an_index_are_refused(
    service: httpx.Client, value: float, slug: str
) -> None:
    samples = tone()
    samples[7_000] = value
    attack(service, encoded(samples), slug)


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (recordings.wav(b""), "empty"),
        (recordings.wav(bytes(2)), "too-short"),
        (b"OggS", "unsupported-format"),
        (b"fLaC", "corrupt"),
        (b"ID3\x04\0\0\x7f\x7f\x7f\x7f", "unsupported-format"),
        (b"RIFF\xff\xff\xff\xffWAVE", "truncated"),
    ],
)
def test_files_of_almost_nothing_have_a_name_for_what_they_lack(
    service: httpx.Client, data: bytes, slug: str
) -> None:
    attack(service, data, slug)


def test_archives_are_no_audio(service: httpx.Client) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("clip.wav", bytes(50_000_000))
    attack(service, archive.getvalue(), "unsupported-format")
    attack(service, gzip.compress(bytes(50_000_000)), "unsupported-format")


def test_a_playlist_opens_no_other_file(service: httpx.Client) -> None:
    for text in ("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "ffconcat version 1.0\nfile /etc/x"):
        attack(service, text.encode(), "unsupported-format")


def test_the_neighbours_of_an_attack_are_served(service: httpx.Client) -> None:
    files = [
        ("file", ("good.wav", encoded(tone()))),
        ("file", ("bomb.flac", silence(700, 16_000, 1, ("FLAC", "PCM_16")))),
        ("file", ("also good.wav", encoded(tone()))),
    ]
    first, bomb, last = service.post(URL, files=files).json()["data"]
    assert bomb["error"]["type"] == "/problems/too-long"
    np.testing.assert_array_equal(first["embedding"], last["embedding"])
