"""Recordings of any length, answered in lines."""

import io
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile as sf

from models.runtime import Encoder
from service.problem_types import PROBLEM_TYPES
from tests.service.audio.test_decoder import children
from tests.service.conftest import EMBED_DIM, Serve, encoded, tone, until

URL = "/v1/audio/embeddings"
WAV = {"Content-Type": "audio/wav"}
LINES = {"stream": "true", "window_s": "1", "hop_s": "0.5"}


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def open_files() -> list[str]:
    """What this process has open: deleted and nameless files among it."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(path))
        except OSError:
            continue
    return [name for name in found if "(deleted)" in name]


@pytest.mark.parametrize("in_form", [False, True])
def test_lines_hold_what_one_answer_would(
    client: httpx.Client, encoder: Encoder, in_form: bool
) -> None:
    samples = tone(25.3)
    wav = encoded(samples)
    if in_form:
        answer = client.post(URL, files={"file": ("long.wav", wav)}, params=LINES)
    else:
        answer = client.post(URL, content=wav, params=LINES, headers=WAV)
    opening, *windows, whole, done = lines(answer)
    assert (opening["object"], opening["model"]) == ("stream", "tiny")
    assert opening["space_id"] == "space-of-tiny"
    assert opening.get("file") == ("long.wav" if in_form else None)
    expected = encoder.windows(samples, 1.0, 0.5)
    assert [w["index"] for w in windows] == list(range(len(expected.start_s)))
    assert [w["start_s"] for w in windows] == pytest.approx(expected.start_s)
    assert [w["end_s"] for w in windows] == pytest.approx(expected.end_s)
    vectors = np.array([w["embedding"] for w in windows])
    np.testing.assert_allclose(vectors, expected.embedding, atol=1e-4)  # 16-bit WAV
    assert (whole["object"], whole["duration_s"]) == ("embedding", 25.3)
    np.testing.assert_allclose(whole["embedding"], expected.whole, atol=1e-4)
    usage = {"audio_seconds": 25.3, "windows": len(windows)}
    assert done == {"object": "done", "usage": usage}


def test_the_accept_header_asks_for_lines_as_well(client: httpx.Client) -> None:
    headers = WAV | {"Accept": "application/x-ndjson"}
    answer = client.post(URL, content=encoded(tone(1.0)), headers=headers)
    assert [line["object"] for line in lines(answer)] == ["stream", "embedding", "done"]


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Server-Sent Events as HTML's standard wants them read: fields in lines, a blank one ends."""
    found, name, data = [], "message", list[str]()
    for line in text.split("\n"):
        field, _, value = line.partition(":")
        if not line and data:
            found.append((name, json.loads("\n".join(data))))
            name, data = "message", []
        elif field == "event":
            name = value.removeprefix(" ")
        elif field == "data":
            data.append(value.removeprefix(" "))
    assert not data, "the last event has no end"
    return found


@pytest.mark.parametrize("query", [{"window_s": "0.5"}, {"window_s": "0.5", "stream": "true"}])
def test_the_same_documents_come_as_events(client: httpx.Client, query: dict[str, str]) -> None:
    wav = encoded(tone(1.0))
    in_lines = client.post(URL, content=wav, headers=WAV, params=query | {"stream": "true"})
    answer = client.post(
        URL, content=wav, headers=WAV | {"Accept": "text/event-stream"}, params=query
    )
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    named = events(answer.text)
    assert [name for name, _ in named] == ["stream", "window", "window", "embedding", "done"]
    assert [document for _, document in named] == lines(in_lines)


def test_what_breaks_off_is_the_last_event(client: httpx.Client) -> None:
    cut = encoded(tone(40.0), kind="FLAC")
    cut = cut[: len(cut) * 3 // 4]
    headers = WAV | {"Accept": "text/event-stream"}
    answer = client.post(URL, content=cut, headers=headers, params={"window_s": "1"})
    name, document = events(answer.text)[-1]
    assert name == document["object"] == "error"
    assert document["error"]["status"] == 422


def test_a_file_beyond_the_limits_of_one_answer_is_streamed(serve: Serve) -> None:
    wav = encoded(tone(30.0))
    limits = {"max_duration_s": 20.0, "max_body_bytes": len(wav) - 1, "max_decoded_bytes": 100_000}
    with serve(**limits) as client:
        assert client.post(URL, content=wav, headers=WAV).status_code == 413
        for answer in (
            client.post(URL, content=wav, headers=WAV, params=LINES),
            client.post(URL, files={"file": wav}, params=LINES),
        ):
            assert lines(answer)[-1]["usage"]["audio_seconds"] == 30.0


@pytest.mark.parametrize(
    ("content", "asked", "slug"),
    [
        (b"GIF89a", {}, "unsupported-format"),
        (b"", {}, "empty"),
        (encoded(tone(0.02)), {}, "too-short"),
        (encoded(tone(6.0)), {}, "too-long"),
        (encoded(tone(1.0)), {"output": "npy"}, "invalid-parameter"),
        (encoded(tone(1.0)), {"model": "none"}, "model-not-found"),
        (encoded(tone(1.0)), {"hop_s": "2"}, "invalid-parameter"),
        (bytes(300_000), {}, "body-too-large"),
    ],
)
def test_what_fails_before_the_first_line_is_an_answer_of_its_own(
    serve: Serve, content: bytes, asked: dict[str, str], slug: str
) -> None:
    with serve(max_stream_duration_s=5.0, max_stream_body_bytes=250_000) as client:
        answer = client.post(URL, content=content, params=LINES | asked, headers=WAV)
    assert answer.json()["type"] == PROBLEM_TYPES[slug].uri
    assert answer.status_code == PROBLEM_TYPES[slug].status


def test_what_breaks_off_later_is_the_last_line(client: httpx.Client) -> None:
    flac = encoded(np.random.default_rng(0).normal(0, 0.1, 16_000 * 60), kind="FLAC")
    answer = client.post(URL, content=flac[: len(flac) // 2], params=LINES, headers=WAV)
    *before, last = lines(answer)
    assert {line["object"] for line in before} == {"stream", "window"}
    assert last["object"] == "error"
    error = last["error"]
    assert error["status"] == 422
    assert error["instance"] == f"urn:viola:request:{answer.headers['X-Request-ID']}"
    assert error["error"]["code"] in ("truncated", "corrupt")


def test_stream_belongs_into_the_query(client: httpx.Client) -> None:
    answer = client.post(URL, files={"file": encoded(tone())}, data={"stream": "true"})
    assert (answer.status_code, answer.json()["param"]) == (400, "stream")


def test_one_file_at_a_time_is_streamed(client: httpx.Client) -> None:
    files = [("file", ("a", encoded(tone()))), ("file", ("b", encoded(tone())))]
    assert client.post(URL, files=files, params=LINES).json()["type"] == "/problems/too-many-files"


def test_a_stream_more_than_are_allowed_is_refused(serve: Serve) -> None:
    with serve(max_streams=1) as client:
        head = f"POST {URL}?stream=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n"
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as line:
            line.sendall(head.encode() + bytes(100))
            time.sleep(0.2)
            answer = client.post(URL, content=encoded(tone()), params=LINES)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
            assert client.post(URL, content=encoded(tone())).status_code == 200


@pytest.fixture(scope="module")
def hour() -> bytes:
    """An hour of silence: half a megabyte as FLAC."""
    file = io.BytesIO()
    with sf.SoundFile(file, "w", 16_000, 1, "PCM_16", format="FLAC") as out:
        for _ in range(60):
            out.write(np.zeros(16_000 * 60, np.int16))
    return file.getvalue()


def reading(client: httpx.Client, data: bytes) -> Iterator[str]:
    asked = {"stream": "true", "window_s": "0.04"}  # 25 vectors a second
    with client.stream("POST", URL, content=data, params=asked) as answer:
        yield from answer.iter_lines()


def test_lines_leave_while_the_rest_is_computed_and_nothing_is_left_when_the_client_goes(
    client: httpx.Client, hour: bytes
) -> None:
    before = len(open_files())
    with httpx.Client(base_url=client.base_url) as other:
        some = reading(other, hour)
        got = [json.loads(next(some)) for _ in range(50)]
        assert len(open_files()) == before + 1
        some.close()  # type: ignore[attr-defined]
    assert [line["object"] for line in got] == ["stream"] + ["window"] * 49
    assert len(got[1]["embedding"]) == EMBED_DIM
    until(lambda: len(open_files()) == before)


def test_a_client_that_takes_nothing_is_given_up(serve: Serve, hour: bytes) -> None:
    with serve(idle_timeout_s=0.5, max_streams=1) as client:
        head = f"POST {URL}?stream=1&window_s=0.04 HTTP/1.1\r\nHost: x\r\n"
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as line:
            line.sendall(f"{head}Content-Length: {len(hour)}\r\n\r\n".encode() + hour)
            until(
                lambda: client.post(URL, content=encoded(tone()), params=LINES).status_code == 200,
                60,
            )


def test_without_a_folder_to_write_in_it_goes_through_memory(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = encoded(tone(12.0))
    monkeypatch.setattr("tempfile.TemporaryFile", _refuse)
    with serve(max_body_bytes=len(wav) + 1_000) as client:
        for answer in (
            client.post(URL, content=wav, headers=WAV, params=LINES),
            client.post(URL, files={"file": wav}, params=LINES),
        ):
            assert lines(answer)[-1]["usage"]["audio_seconds"] == 12.0
        answer = client.post(URL, content=wav + bytes(2_000), headers=WAV, params=LINES)
        assert answer.json()["limit"] == len(wav) + 1_000


def _refuse(*args: Any, **options: Any) -> Any:
    raise FileNotFoundError("no usable temporary directory")


def test_a_stream_is_charged_and_counted_as_it_is_decoded(serve: Serve) -> None:
    with serve(audio_seconds_per_minute=20.0) as client:
        assert lines(client.post(URL, content=encoded(tone(25.0)), params=LINES))[-1]["usage"]
        refused = client.post(URL, content=encoded(tone(1.0)), params=LINES)
        assert refused.status_code == 429
        assert refused.json()["observed"] == pytest.approx(25.0, abs=1)
        page = client.get("/metrics").text
    for result in ("decoded", "embedded"):
        assert f'viola_audio_seconds_total{{result="{result}"}} 25.0' in page


def test_a_body_that_stops_coming_is_given_up(serve: Serve) -> None:
    with serve(max_streams=1, body_grace_s=0.3) as client:
        head = f"POST {URL}?stream=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n"
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, 10) as line:
            line.sendall(head.encode() + bytes(100))
            assert line.recv(65_536).startswith(b"HTTP/1.1 408 ")
        assert client.post(URL, content=encoded(tone()), params=LINES).status_code == 200


def test_a_decoder_that_dies_is_the_last_line(serve: Serve, hour: bytes) -> None:
    with serve(decode_workers=1) as client:
        pool = set(children())
        some = reading(client, hour)
        for _ in range(50):
            next(some)
        (own,) = set(children()) - pool
        os.kill(own, signal.SIGKILL)
        *_, last = some
        until(lambda: set(children()) == pool)
    assert json.loads(last)["error"]["type"] == "/problems/undecodable"
