"""`POST /v1/audio/samples`: what the service hears of a file, as a WAV."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile as sf

from models.audio import SAMPLE_RATE
from tests.service.conftest import Serve, encoded, tone

URL = "/v1/audio/samples"


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize("seconds", [0.1, 20.0])
def test_what_is_at_16_khz_in_16_bits_comes_back_as_it_was(
    serve: Serve, kind: str, seconds: float
) -> None:
    file = encoded(tone(seconds), kind=kind)
    with serve() as client:
        answer = client.post(URL, files={"file": ("a", file)})
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["content-length"] == str(len(answer.content))
    heard, rate = sf.read(io.BytesIO(answer.content), dtype="int16")
    sent, _ = sf.read(io.BytesIO(file), dtype="int16")
    assert rate == SAMPLE_RATE
    assert np.array_equal(heard, sent)


def test_a_part_is_decoded_alone_and_what_is_too_loud_is_clipped(serve: Serve) -> None:
    loud = encoded(np.stack([4 * tone(2), 0 * tone(2)], axis=1))
    with serve() as client:
        params = {"start_s": 0.5, "end_s": 1.0, "channel": "0"}
        answer = client.post(URL, files={"file": ("a", loud)}, params=params)
    heard, _ = sf.read(io.BytesIO(answer.content), dtype="int16")
    assert len(heard) == SAMPLE_RATE // 2
    assert (heard.min(), heard.max()) == (-32768, 32767)


def test_what_is_no_recording_and_what_is_two_is_refused(serve: Serve) -> None:
    with serve() as client:
        text = client.post(URL, files={"file": ("a.txt", b"no sound")})
        two = [("file", ("a.wav", encoded(tone())))] * 2
        many = client.post(URL, files=two)
    assert text.status_code == 415
    assert many.status_code == 400
    assert "send one file" in many.json()["detail"]


def kept(client: httpx.Client, file: bytes, *, keeps_audio: bool = True) -> str:
    """The address of a recording in a collection of its own."""
    client.put("/v1/collections/kept", json={"keeps_audio": keeps_audio})
    client.post("/v1/collections/kept/items", content=file, params={"id": "a", "stream": True})
    return "/v1/collections/kept/items/a/samples"


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_a_kept_recording_is_decoded_as_it_would_be_when_sent(
    serve: Serve, tmp_path: Path, kind: str
) -> None:
    file = encoded(tone(2.0), kind=kind)
    part = {"start_s": 0.5, "end_s": 9.0}
    with serve(data=tmp_path) as client:
        url = kept(client, file)
        got, sent = client.get(url), client.post(URL, content=file)
        some = client.get(url, params=part)
    assert got.content == sent.content
    assert got.headers["content-type"] == "audio/wav"
    assert len(some.content) == 44 + 2 * round(1.5 * SAMPLE_RATE)


def test_of_a_kept_recording_that_is_longer_than_a_request_a_part_is_decoded(
    serve: Serve, tmp_path: Path
) -> None:
    file = encoded(tone(40.0, rate=8000), rate=8000)
    with serve(data=tmp_path, max_duration_s=10.0, max_body_bytes=1 << 20) as client:
        url = kept(client, file)
        whole = client.get(url)
        part = client.get(url, params={"start_s": 35.0, "end_s": 38.0})
        metrics = client.get("/metrics").text
    assert (whole.status_code, whole.json()["limit"]) == (413, 10.0)
    assert len(part.content) == 44 + 2 * 3 * SAMPLE_RATE
    assert "viola_memory_bytes 0.0" in metrics.splitlines()


def test_what_was_not_kept_cannot_be_decoded(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path) as client:
        answer = client.get(kept(client, encoded(tone()), keeps_audio=False))
    assert answer.status_code == 404
    assert "was not kept" in answer.json()["detail"]
