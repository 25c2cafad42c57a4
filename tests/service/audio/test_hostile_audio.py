"""Files made to hurt a decoder: each is refused, or read, at a small cost."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.problem_types import PROBLEM_TYPES
from tests.hostile import FILES, second_of_flac, silence, with_flac_header
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


@pytest.mark.parametrize("name", FILES)
def test_a_file_made_to_hurt_is_refused_at_a_small_cost(service: httpx.Client, name: str) -> None:
    attack(service, FILES[name].make(), FILES[name].slug)


@pytest.mark.parametrize(
    ("name", "limit", "unit", "observed"),
    [
        ("an hour of silence", 600, "s", (3600, 3600)),
        ("15 minutes of a length not told", 600, "s", (600, 700)),  # stopped there
        ("90 s of 8 channels at 192 kHz", 256 << 20, "bytes", (256 << 20, 1 << 33)),
        ("a WAV that claims 1 Hz", 4_000, "Hz", (1, 1)),
        ("a FLAC that claims 655 kHz", 384_000, "Hz", (655_350, 655_350)),
    ],
)
def test_a_bomb_is_told_the_limit_and_what_met_it(
    service: httpx.Client, name: str, limit: float, unit: str, observed: tuple[float, float]
) -> None:
    document = attack(service, FILES[name].make(), FILES[name].slug)
    assert (document["limit"], document["unit"]) == (limit, unit)
    assert observed[0] <= document["observed"] <= observed[1]


def test_an_hour_takes_few_bytes() -> None:
    assert len(FILES["an hour of silence"].make()) < 400_000


def test_a_flac_that_does_not_know_its_length_is_read(service: httpx.Client) -> None:
    file = with_flac_header(second_of_flac(), frames=0)
    assert service.post(URL, content=file).json()["data"][0]["duration_s"] == 1.0


def test_a_playlist_opens_no_other_file(service: httpx.Client) -> None:
    for text in ("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "ffconcat version 1.0\nfile /etc/x"):
        attack(service, text.encode(), "unsupported-format")


def test_the_neighbours_of_an_attack_are_served(service: httpx.Client) -> None:
    files = [
        ("file", ("good.wav", encoded(tone()))),
        ("file", ("bomb.flac", silence(700, 16_000, 1))),
        ("file", ("also good.wav", encoded(tone()))),
    ]
    first, bomb, last = service.post(URL, files=files).json()["data"]
    assert bomb["error"]["type"] == "/problems/too-long"
    np.testing.assert_array_equal(first["embedding"], last["embedding"])
