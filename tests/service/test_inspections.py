"""`POST /v1/audio/inspect`, and the quality report of `/v1/audio/analyze`."""

from typing import Any

import httpx
import numpy as np
import pytest

from service.schemas import InspectionList
from tests import recordings
from tests.service.conftest import Serve, encoded, tone
from tests.service.traffic.test_refusals import BAD_AUDIO, refused

URL = "/v1/audio/inspect"
WAV = {"Content-Type": "audio/wav"}

HIDDEN = ("corrupt", "non-finite", "amplitude")  # not in the headers


def inspected(client: httpx.Client, *files: bytes, **asked: Any) -> dict[str, Any]:
    form = [("file", (f"{index}.wav", data)) for index, data in enumerate(files)]
    answer = client.post(URL, files=form, params=asked)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    InspectionList.model_validate(body)
    return body


@pytest.mark.parametrize(
    ("kind", "container", "codec"),
    [
        ("wav-24", "WAV", "PCM_24"),
        ("flac", "FLAC", "PCM_16"),
        ("vorbis", "Ogg", "VORBIS"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
def test_a_file_says_what_it_claims_to_be(
    client: httpx.Client, kind: str, container: str, codec: str
) -> None:
    body = inspected(client, recordings.encoded(kind, recordings.tone(1.5, channels=2)))
    assert (body["model"], body["space_id"]) == ("tiny", "space-of-tiny")
    assert body["is_decoded"] is False
    assert "not decoded" in body["note"]
    (item,) = body["data"]
    assert item["is_accepted"]
    assert (item["container"], item["codec"]) == (container, codec)
    assert (item["sample_rate"], item["channels"]) == (recordings.RATE, 2)
    assert "quality" not in item
    assert "error" not in item
    if item["is_duration_known"]:
        assert item["duration_s"] == pytest.approx(1.5, abs=0.1)


def test_a_length_that_headers_do_not_tell_is_said_not_to_be_known(client: httpx.Client) -> None:
    flac = bytearray(recordings.encoded("flac", recordings.tone(1.0)))
    flac[21] &= 0xF0  # the 36 bits of the number of samples
    flac[22:26] = bytes(4)
    (item,) = inspected(client, bytes(flac), window_s=0.5)["data"]
    assert (item["is_accepted"], item["is_duration_known"]) == (True, False)
    assert "duration_s" not in item
    assert "windows" not in item
    (item,) = inspected(client, bytes(flac), window_s=0.5, decode=True)["data"]
    assert (item["duration_s"], item["windows"]) == (pytest.approx(1.0, abs=0.01), 2)


def test_windows_are_counted_and_refused_as_a_request_would(serve: Serve) -> None:
    with serve(max_windows=10, max_request_duration_s=2.5) as client:
        files = encoded(tone(0.8)), encoded(tone(1.0)), encoded(tone(2.0)), encoded(tone(0.1))
        body = inspected(client, *files, window_s=0.1)
    first, second, third, fourth = body["data"]
    assert (first["is_accepted"], first["windows"]) == (True, 8)
    assert second["error"]["type"] == "/problems/too-many-windows"
    assert third["error"]["type"] == "/problems/request-too-long"
    assert (fourth["is_accepted"], fourth["windows"]) == (True, 1)
    assert body["usage"] == {"audio_seconds": pytest.approx(0.9), "windows": 9}


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("slug", BAD_AUDIO)
def test_what_would_be_refused_comes_with_its_problem(
    serve: Serve, slug: str, decode: bool
) -> None:
    with serve(max_duration_s=2.0, max_decoded_bytes=500_000) as client:
        (item,) = inspected(client, BAD_AUDIO[slug], decode=decode)["data"]
    if slug in HIDDEN[1:] and not decode:
        assert item["is_accepted"]
    else:
        assert not item["is_accepted"]
        assert item["error"]["type"] == f"/problems/{slug}"


def test_decoding_is_charged_and_a_look_at_headers_is_not(serve: Serve) -> None:
    wav = encoded(tone(1.0))
    with serve(audio_seconds_per_minute=60.0) as client:
        for decode, left in ((False, "r=60"), (True, "r=59")):
            answer = client.post(URL, content=wav, params={"decode": decode})
            assert f";{left};" in answer.headers["RateLimit"]


def test_a_decoded_file_has_a_quality_report(client: httpx.Client) -> None:
    body = inspected(client, encoded(np.clip(3 * tone(1.0), -1, 1)), decode=True)
    assert body["is_decoded"] is True
    quality = body["data"][0]["quality"]
    assert quality["clipped_share"] > 0.3
    assert any("clipped" in warning for warning in quality["warnings"])


def test_an_analysis_has_the_quality_of_the_recording_as_it_came(client: httpx.Client) -> None:
    stereo = recordings.encoded("flac", recordings.tone(1.0, channels=2))
    answer = client.post("/v1/audio/analyze", content=stereo, headers=WAV)
    quality = answer.json()["data"][0]["quality"]
    assert (quality["container"], quality["sample_rate"], quality["channels"]) == (
        "FLAC",
        44_100,
        2,
    )
    assert quality["bandwidth_hz"] == pytest.approx(440, abs=300)
    assert quality["peak_dbfs"] == pytest.approx(-6, abs=0.1)


def test_parameters_and_bodies_are_those_of_the_other_routes(client: httpx.Client) -> None:
    asked = {"decode": "perhaps"}
    wav = encoded(tone())
    refused(client.post(URL, content=wav, params=asked, headers=WAV), "invalid-parameter")
    refused(client.post(URL, content=wav, params={"hop_s": 1}, headers=WAV), "invalid-parameter")
    refused(client.post(URL, content=wav, params={"model": "big"}, headers=WAV), "model-not-found")
    refused(client.post(URL, json={}), "unsupported-media-type")
