"""Live streams over a WebSocket."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from models import audio
from models.runtime import Encoder
from tests.service.conftest import Serve, encoded, tone, until

END = json.dumps({"end": True})


@contextmanager
def opened(client: httpx.Client, **config: Any) -> Iterator[ClientConnection]:
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))
    with connect(url, max_size=None, close_timeout=5) as line:
        with suppress(ConnectionClosed):  # refused before it has been read
            line.send(json.dumps({"sample_rate": 16_000, "window_s": 1.0, "hop_s": 0.5} | config))
        yield line


def rest(line: ClientConnection) -> Iterator[dict[str, Any]]:
    """Every message until the service closes."""
    try:
        while True:
            yield json.loads(line.recv(timeout=20))
    except ConnectionClosed:
        return


@pytest.mark.parametrize(("rate", "encoding"), [(16_000, "s16le"), (44_100, "f32le")])
@pytest.mark.parametrize("part", [333, 4_410, 40_000])
def test_a_live_stream_gets_what_the_file_would(
    client: httpx.Client, encoder: Encoder, rate: int, encoding: str, part: int
) -> None:
    samples = tone(4.3, rate=rate)
    pcm = (np.round(samples * 2**15).astype("<i2") if encoding == "s16le" else samples).tobytes()
    size = part * (2 if encoding == "s16le" else 4)
    with opened(client, sample_rate=rate, encoding=encoding) as line:
        for first in range(0, len(pcm), size):
            line.send(pcm[first : first + size])
        line.send(END)
        opening, *windows, whole, done = rest(line)
        assert line.close_code == 1000
    expected = encoder.windows(audio.decode(encoded(samples, rate=rate)), 1.0, 0.5)
    assert opening["space_id"] == "space-of-tiny"
    assert [w["start_s"] for w in windows] == pytest.approx(expected.start_s)
    vectors = np.array([w["embedding"] for w in windows])
    np.testing.assert_allclose(vectors, expected.embedding, atol=1e-4)
    np.testing.assert_allclose(whole["embedding"], expected.whole, atol=1e-4)
    assert done["usage"]["windows"] == len(windows)
    assert done["usage"]["audio_seconds"] == pytest.approx(4.3, abs=1e-3)


def test_an_answer_comes_with_every_hop(client: httpx.Client) -> None:
    pcm = np.zeros(8_000, "<i2").tobytes()  # half a second
    with opened(client) as line:
        assert json.loads(line.recv(timeout=20))["object"] == "stream"
        line.send(pcm)
        for _ in range(6):
            line.send(pcm)
            line.send(bytes(320))  # a frame more than the tile, so that it leaves
            message = json.loads(line.recv(timeout=20))
            assert message["object"] == "window"


@pytest.mark.parametrize(
    ("config", "status", "slug"),
    [
        ({"sample_rate": 4_000}, 400, "invalid-parameter"),
        ({"encoding": "mp3"}, 400, "invalid-parameter"),
        ({"colour": "red"}, 400, "invalid-parameter"),
        ({"hop_s": 2.0}, 400, "invalid-parameter"),
        ({"model": "none"}, 404, "model-not-found"),
        ({"head": "none"}, 404, "classifier-not-found"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    client: httpx.Client, config: dict[str, Any], status: int, slug: str
) -> None:
    with opened(client, **config) as line:
        (last,) = rest(line)
    assert (last["object"], last["error"]["type"]) == ("error", f"/problems/{slug}")
    assert line.close_code == 4000 + status


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (bytes(3), 4400),
        (bytes((1 << 20) + 2), 4413),
        (np.full(800, np.nan, "<f4").tobytes(), 4422),
        ("stop", 4400),
    ],
)
def test_a_message_that_cannot_be_used_ends_the_stream(
    client: httpx.Client, message: bytes | str, code: int
) -> None:
    with opened(client, encoding="f32le") as line:
        line.send(message)
        assert [m["object"] for m in rest(line)] == ["stream", "error"]
    assert line.close_code == code


def test_a_stream_has_the_id_that_the_client_gave_it(client: httpx.Client) -> None:
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))
    with connect(url, additional_headers={"X-Request-ID": "mine-1"}) as line:
        assert line.response is not None
        assert line.response.headers["X-Request-ID"] == "mine-1"
        line.send("no configuration")
        (last,) = rest(line)
    assert last["error"]["instance"] == "urn:viola:request:mine-1"
    with connect(url, additional_headers={"X-Request-ID": "not ours"}) as line:
        assert line.response is not None
        assert len(line.response.headers["X-Request-ID"]) == 32


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_makes_no_noise(client: httpx.Client) -> None:
    with opened(client, encoding="f32le") as line:
        line.send(b"\x01\x00\xa0\x7f" * 800)
        *_, last = rest(line)
    assert last["error"]["type"] == "/problems/non-finite"


def test_no_sound_at_all_is_too_short(client: httpx.Client) -> None:
    with opened(client) as line:
        line.send(END)
        *_, last = rest(line)
    assert last["error"]["type"] == "/problems/too-short"


def test_limits_of_time_and_number(serve: Serve) -> None:
    with serve(max_streams=1, idle_timeout_s=0.5, max_stream_duration_s=1.0) as client:
        with opened(client) as line, opened(client) as second:
            (last,) = rest(second)
            assert (last["error"]["type"], second.close_code) == ("/problems/overloaded", 4503)
            *_, last = rest(line)
            assert (last["error"]["type"], line.close_code) == ("/problems/body-timeout", 4408)
        with opened(client) as line:
            line.send(np.zeros(16_001, "<i2").tobytes())
            *_, last = rest(line)
            assert (last["error"]["type"], line.close_code) == ("/problems/too-long", 4413)


def test_a_client_that_goes_leaves_its_place(serve: Serve) -> None:
    with serve(max_streams=1) as client:
        with opened(client) as line:
            line.recv(timeout=20)
            line.socket.shutdown(socket.SHUT_RDWR)  # without a word

        def is_free() -> bool:
            with opened(client) as other:
                return bool(json.loads(other.recv(timeout=20))["object"] == "stream")

        until(is_free)
