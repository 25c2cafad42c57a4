"""A part of each recording over HTTP, and what is noticed about a recording."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from models.runtime import Encoder
from tests import recordings
from tests.service.conftest import encoded, tone

URL = "/v1/audio/embeddings"
NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, (48_000, 2)).astype(np.float32)
FLAC = recordings.encoded("flac", NOISE, 16_000)
PART = {"start_s": 1.0, "end_s": 2.5, "channel": 1}
OPPOSITE = recordings.encoded("wav-16", NOISE[:, :1] * [1, -1], 16_000)


def only(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["data"]
    return dict(item)


def last_but_one(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(json.loads(answer.text.splitlines()[-2]))


@pytest.mark.parametrize("path", [URL, "/v1/audio/analyze"])
def test_a_part_is_embedded_as_if_it_were_all(
    client: httpx.Client, encoder: Encoder, path: str
) -> None:
    item = only(client.post(path, content=FLAC, params=PART))
    expected = encoder.embed(np.ascontiguousarray(NOISE[16_000:40_000, 1]))
    np.testing.assert_allclose(item["embedding"], expected, atol=1e-3)
    assert item["duration_s"] == 1.5


def test_windows_of_a_part_count_from_the_beginning(client: httpx.Client) -> None:
    asked = PART | {"window_s": 0.5}
    windows = only(client.post(URL, content=FLAC, params=asked))["windows"]
    times = [(window["start_s"], window["end_s"]) for window in windows]
    assert times == [(1.0, 1.5), (1.5, 2.0), (2.0, 2.5)]
    streamed = client.post(URL, content=FLAC, params=asked | {"stream": "true"})
    lines = [json.loads(line) for line in streamed.text.splitlines()]
    found = [(line["start_s"], line["end_s"]) for line in lines if line["object"] == "window"]
    assert found == times
    assert lines[-2]["duration_s"] == 1.5


def test_a_forms_fields_select_too(client: httpx.Client) -> None:
    fields = {name: str(value) for name, value in PART.items()}
    answer = client.post(URL, files={"file": ("a.flac", FLAC)}, data=fields)
    assert only(answer)["duration_s"] == 1.5


@pytest.mark.parametrize("decode", [False, True])
def test_an_inspection_is_that_of_the_part(client: httpx.Client, decode: bool) -> None:
    asked = PART | {"decode": decode}
    item = only(client.post("/v1/audio/inspect", content=FLAC, params=asked))
    assert (item["is_accepted"], item["duration_s"]) == (True, 1.5)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"channel": -1}, "channel"),
        ({"channel": 1_000}, "channel"),
        ({"channel": "left"}, "channel"),
        ({"start_s": -1}, "start_s"),
        ({"start_s": "nan"}, "start_s"),
        ({"start_s": "1e308"}, "start_s"),
        ({"end_s": 0}, "end_s"),
        ({"end_s": "inf"}, "end_s"),
        ({"start_s": 2, "end_s": 2}, "end_s"),
    ],
)
def test_what_can_be_no_part_is_an_invalid_parameter(
    client: httpx.Client, asked: dict[str, Any], param: str
) -> None:
    answer = client.post(URL, content=FLAC, params=asked)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-parameter")
    assert param in {name["name"] for name in answer.json()["invalid_params"]}


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize(
    ("asked", "limit", "observed"), [({"start_s": 3.5}, 3.0, 3.5), ({"channel": 2}, 1, 2)]
)
def test_what_is_not_in_the_recording_is_refused_with_what_is(
    client: httpx.Client, asked: dict[str, Any], limit: float, observed: float, stream: str
) -> None:
    answer = client.post(URL, content=FLAC, params=asked | {"stream": stream})
    document = answer.json()
    assert (answer.status_code, document["type"]) == (422, "/problems/not-in-recording")
    assert (document["limit"], document["observed"]) == (limit, observed)


def test_opposite_phases_are_told_in_every_answer(client: httpx.Client) -> None:
    for path in (URL, "/v1/audio/analyze"):
        (sentence,) = only(client.post(path, content=OPPOSITE))["warnings"]
        assert "out of phase" in sentence
    analysis = only(client.post("/v1/audio/analyze", content=OPPOSITE))
    assert sentence in analysis["quality"]["warnings"]
    inspected = client.post("/v1/audio/inspect", content=OPPOSITE, params={"decode": True})
    assert only(inspected)["warnings"] == [sentence]
    streamed = client.post(URL, content=OPPOSITE, params={"stream": "true"})
    assert last_but_one(streamed)["warnings"] == [sentence]


def test_a_file_of_which_nothing_is_noticed_has_no_warnings(client: httpx.Client) -> None:
    assert "warnings" not in only(client.post(URL, content=encoded(tone())))
    assert "warnings" not in only(client.post(URL, content=OPPOSITE, params={"channel": 0}))


def test_joined_files_are_embedded_to_the_end_and_a_stale_header_is_told(
    client: httpx.Client,
) -> None:
    opus = recordings.encoded("opus", recordings.tone(1.0, 48_000), 48_000)
    assert only(client.post(URL, content=opus + opus))["duration_s"] == pytest.approx(2.0, abs=0.1)
    stale = recordings.wav(NOISE[:, 0].astype("<f4").tobytes(), tag=3, bits=32, claimed=400)
    item = only(client.post(URL, content=stale))
    assert item["duration_s"] == 3.0
    assert "were read as samples" in item["warnings"][0]
