"""Live streams over a WebSocket."""

import base64
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import numpy as np
import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from models import audio
from models.runtime import Encoder
from service.traffic.auth import digest_of, new_key
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.telemetry.test_metrics import scraped

KEYS = {name: new_key() for name in ("all", "embedder", "poor", "scraper")}
LINES = [
    f"all:{digest_of(KEYS['all'])}",
    f"embedder:{digest_of(KEYS['embedder'])}:embed",
    f"poor:{digest_of(KEYS['poor'])}::0.1",
    f"scraper:{digest_of(KEYS['scraper'])}:metrics",
]
END = json.dumps({"end": True})


def address(client: httpx.Client) -> str:
    return str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))


@contextmanager
def opened(client: httpx.Client, **config: Any) -> Iterator[ClientConnection]:
    with connect(address(client), max_size=None, close_timeout=5) as line:
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


def test_vectors_of_a_live_stream_are_shortened_as_those_of_files(client: httpx.Client) -> None:
    pcm = np.round(tone(2.0) * 2**15).astype("<i2").tobytes()
    ends = []
    for asked in ({}, {"dimensions": 3}):
        with opened(client, **asked) as line:
            line.send(pcm)
            line.send(END)
            *_, whole, _ = rest(line)
            ends.append(np.array(whole["embedding"]))
    first = ends[0][:3]
    np.testing.assert_allclose(ends[1], first / np.linalg.norm(first), atol=1e-6)


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
        ({"dimensions": 0}, 400, "invalid-parameter"),
        ({"dimensions": 100_000}, 400, "invalid-parameter"),
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
        (bytes((1 << 20) + 2), 4413),
        (np.full(800, np.nan, "<f4").tobytes(), 4422),
        ("stop", 4400),
        ('{"end": true, "now": true}', 4400),
    ],
)
def test_a_message_that_cannot_be_used_ends_the_stream(
    client: httpx.Client, message: bytes | str, code: int
) -> None:
    with opened(client, encoding="f32le") as line:
        line.send(message)
        assert [m["object"] for m in rest(line)] == ["stream", "error"]
    assert line.close_code == code


@pytest.mark.parametrize(
    ("first", "messages"),
    [
        ('{"sample_rate": 8000, "sample_rate": 16000}', ["error"]),
        ('{"sample_rate": 16000}', ["stream", "error"]),
    ],
)
def test_a_message_that_has_a_member_twice_is_refused_by_its_name(
    client: httpx.Client, first: str, messages: list[str]
) -> None:
    with connect(address(client)) as line:
        line.send(first)
        with suppress(ConnectionClosed):
            line.send(tone(1.0).astype("<i2").tobytes())
            line.send('{"end": true, "end": true}')
        answers = list(rest(line))
    assert [one["object"] for one in answers] == messages
    assert "is given twice" in answers[-1]["error"]["detail"]
    assert line.close_code == 4400


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


def test_a_stream_may_be_cut_between_any_two_bytes(client: httpx.Client) -> None:
    pcm = tone(2.2).tobytes()
    answers = []
    for size in (len(pcm), 333, 32_001):
        with opened(client, encoding="f32le") as line:
            for first in range(0, len(pcm), size):
                line.send(pcm[first : first + size])
            line.send(END)
            answers.append(list(rest(line)))
    assert answers[0] == answers[1] == answers[2]


def test_a_stream_that_ends_within_a_sample_is_refused(client: httpx.Client) -> None:
    with opened(client, encoding="f32le") as line:
        line.send(bytes(16_003))
        line.send(END)
        *_, last = rest(line)
    assert "3 bytes of a sample" in last["error"]["detail"]
    assert line.close_code == 4400


def silence(seconds: float) -> bytes:
    return np.zeros(round(seconds * 16_000), "<i2").tobytes()


def test_who_says_nothing_is_told_so_and_closed(serve: Serve) -> None:
    with serve(idle_timeout_s=0.5, head_timeout_s=0.3, max_stream_duration_s=1.0) as client:
        with opened(client) as line:
            *_, last = rest(line)
            assert (last["error"]["type"], line.close_code) == ("/problems/body-timeout", 4408)
            assert last["error"]["limit"] == 0.5
        with connect(address(client)) as line:  # without a configuration
            (last,) = rest(line)
            assert (last["error"]["limit"], line.close_code) == (0.3, 4408)
        with opened(client) as line:
            line.send(silence(1.1))
            *_, last = rest(line)
            assert (last["error"]["type"], line.close_code) == ("/problems/too-long", 4413)


@pytest.mark.parametrize("drop", [b"", b"\0\0"])
def test_empty_messages_and_a_sample_now_and_then_keep_no_socket(serve: Serve, drop: bytes) -> None:
    with serve(idle_timeout_s=0.6) as client, opened(client) as line:
        started = time.monotonic()
        with suppress(ConnectionClosed):
            while time.monotonic() - started < 10:
                line.send(drop)
                time.sleep(0.1)
        assert time.monotonic() - started < 5
        assert line.close_code == 4408


def test_audio_as_slow_as_it_is_spoken_is_waited_for(serve: Serve) -> None:
    with serve(idle_timeout_s=0.6) as client, opened(client) as line:
        for _ in range(6):
            line.send(silence(0.3))
            time.sleep(0.3)
        line.send(END)
        assert list(rest(line))[-1]["object"] == "done"


def test_silent_sockets_take_no_place(serve: Serve) -> None:
    with serve(max_live_streams=1) as client, ExitStack() as silent:
        for _ in range(5):
            silent.enter_context(opened(client))
        with opened(client) as line:
            line.send(silence(0.5))
            until(lambda: scraped(client)["viola_live_streams"] == 1)
            with pytest.raises(InvalidStatus) as refusal, connect(address(client)):
                pass
            problem = told(refusal.value, 503, "overloaded")
            assert (problem["limit"], problem["observed"]) == (1, 2)
            assert refusal.value.response.headers["Retry-After"] == "1"
            line.send(END)
            assert list(rest(line))[-1]["object"] == "done"
        until(lambda: scraped(client)["viola_live_streams"] == 0)


def test_a_stream_that_finds_no_place_any_more_is_told_when_to_come_again(serve: Serve) -> None:
    with serve(max_live_streams=1) as client, opened(client) as one, opened(client) as other:
        one.send(silence(0.5))
        until(lambda: scraped(client)["viola_live_streams"] == 1)
        other.send(silence(0.5))
        *_, last = rest(other)
        assert (last["error"]["type"], other.close_code) == ("/problems/overloaded", 4503)
        assert last["error"]["retry_after_s"] == 1


def test_live_streams_and_uploads_do_not_take_each_others_places(serve: Serve) -> None:
    with serve(max_live_streams=1, max_streams=1) as client, opened(client) as line:
        line.send(silence(0.5))
        until(lambda: scraped(client)["viola_live_streams"] == 1)
        answer = client.post("/v1/audio/embeddings?stream=true", content=encoded(tone()))
        assert answer.status_code == 200
        assert answer.headers["X-Accel-Buffering"] == "no"


def test_a_client_that_goes_leaves_its_place(serve: Serve) -> None:
    with serve(max_live_streams=1) as client:
        with opened(client) as line:
            line.send(silence(0.5))
            until(lambda: scraped(client)["viola_live_streams"] == 1)
            line.socket.shutdown(socket.SHUT_RDWR)  # without a word
        until(lambda: scraped(client)["viola_live_streams"] == 0)


# Who may open one


def told(refusal: InvalidStatus, status: int, slug: str) -> dict[str, Any]:
    """The problem that a handshake was answered with."""
    response = refusal.response
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"]
    document: dict[str, Any] = json.loads(response.body)
    assert (document["type"], document["status"]) == (f"/problems/{slug}", status)
    return document


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        (None, True),
        ("{same}", True),
        ("https://a.example", True),
        ("https://b.example", False),
        ("http://a.example", False),
        ("null", False),
        ("https://a.example.evil.example", False),
        ("{same}.evil.example", False),
        ("file://", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_pages_of_other_origins_may_not_open_a_stream(
    serve: Serve, origin: str | None, is_let_in: bool
) -> None:
    with serve(cors_origins=("https://a.example",)) as client:
        same = str(client.base_url).rstrip("/")
        headers = {} if origin is None else {"Origin": origin.format(same=same)}
        with ExitStack() as stack:
            if is_let_in:
                stack.enter_context(connect(address(client), additional_headers=headers))
            else:
                refusal = stack.enter_context(pytest.raises(InvalidStatus))
                stack.enter_context(connect(address(client), additional_headers=headers))
        if not is_let_in:
            told(refusal.value, 403, "foreign-origin")


def test_a_refused_handshake_is_no_error_in_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    page = {"Origin": "https://b.example"}
    with (
        pytest.raises(InvalidStatus) as refusal,
        connect(address(client), additional_headers=page),
    ):
        pass
    told(refusal.value, 403, "foreign-origin")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("is_configured", [True, False])
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(Frame(Opcode.TEXT, b"\xff"), id="no UTF-8"),
        pytest.param(Frame(Opcode.CONT, b"x"), id="nothing to continue"),
    ],
)
def test_what_breaks_the_protocol_is_no_error_in_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, frame: Frame, is_configured: bool
) -> None:
    with (
        capture_logs() as logs,
        connect(address(client), max_size=None, compression=None, close_timeout=5) as line,
    ):
        config = json.dumps({"sample_rate": 16_000, "window_s": 1.0, "hop_s": 0.5}).encode()
        frames = [Frame(Opcode.TEXT, config), frame] if is_configured else [frame]
        line.socket.sendall(b"".join(sent.serialize(mask=True) for sent in frames))  # at once
        list(rest(line))
        until(lambda: any(entry.get("method") == "WEBSOCKET" for entry in logs))
    assert line.close_code in (1002, 1007)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not [entry for entry in logs if entry["log_level"] == "error"]


def test_a_setting_lets_every_page_in(serve: Serve) -> None:
    headers = {"Origin": "https://b.example"}
    with (
        serve(cors_origins=("*",)) as client,
        connect(address(client), additional_headers=headers),
    ):
        pass


def key_protocol(key: str) -> Subprotocol:
    return Subprotocol("viola.key." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("="))


@pytest.fixture(scope="module")
def keyed(serve: Serve) -> Iterator[httpx.Client]:
    with serve(api_keys=" ".join(LINES), max_inflight_per_key=2) as client:
        yield client


@pytest.mark.parametrize("key", ["no key", "ö"])
@pytest.mark.parametrize("is_page", [False, True])
def test_a_handshake_without_a_known_key_is_401(
    keyed: httpx.Client, key: str, is_page: bool
) -> None:
    offered = {"subprotocols": [Subprotocol("viola.stream"), key_protocol(key)]}
    header = {"additional_headers": {"Authorization": f"Bearer {key.encode().hex()}"}}
    asked: dict[str, Any] = offered if is_page else header
    with pytest.raises(InvalidStatus) as refusal, connect(address(keyed), **asked):
        pass
    told(refusal.value, 401, "unauthorized")
    assert "invalid_token" in refusal.value.response.headers["WWW-Authenticate"]
    with pytest.raises(InvalidStatus) as refusal, connect(address(keyed)):
        pass
    told(refusal.value, 401, "unauthorized")


def test_a_key_without_the_scopes_is_403_and_one_without_quota_429(keyed: httpx.Client) -> None:
    header = {"Authorization": f"Bearer {KEYS['embedder']}"}
    with (
        pytest.raises(InvalidStatus) as refusal,
        connect(address(keyed), additional_headers=header),
    ):
        pass
    told(refusal.value, 403, "forbidden")
    header = {"Authorization": f"Bearer {KEYS['poor']}"}
    keyed.post("/v1/audio/embeddings", content=encoded(tone()), headers=header)
    with (
        pytest.raises(InvalidStatus) as refusal,
        connect(address(keyed), additional_headers=header),
    ):
        pass
    told(refusal.value, 429, "quota-exceeded")
    assert int(refusal.value.response.headers["Retry-After"]) > 0


def test_a_share_that_is_used_up_is_429(keyed: httpx.Client) -> None:
    header = {"Authorization": f"Bearer {KEYS['all']}"}
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(connect(address(keyed), additional_headers=header))
        with (
            pytest.raises(InvalidStatus) as refusal,
            connect(address(keyed), additional_headers=header),
        ):
            pass
    told(refusal.value, 429, "share-exceeded")
    assert refusal.value.response.headers["Retry-After"] == "1"


def test_a_page_sends_its_key_as_a_subprotocol_and_never_gets_it_back(
    keyed: httpx.Client,
) -> None:
    offered = [Subprotocol("viola.stream"), key_protocol(KEYS["all"])]
    same = str(keyed.base_url).rstrip("/")
    with (
        capture_logs() as logs,
        connect(address(keyed), subprotocols=offered, additional_headers={"Origin": same}) as line,
    ):
        assert line.subprotocol == "viola.stream"
        assert line.response is not None
        assert key_protocol(KEYS["all"]) not in str(line.response.headers)
        line.send(json.dumps({"sample_rate": 16_000}))
        line.send(silence(1.5))
        line.send(END)
        assert list(rest(line))[-1]["usage"]["audio_seconds"] == 1.5
        until(lambda: any(entry["event"] == "request" for entry in logs))
    assert KEYS["all"] not in str(logs)
    assert key_protocol(KEYS["all"]) not in str(logs)


def test_a_stream_is_a_line_of_the_log_and_counted_with_key_and_seconds(
    keyed: httpx.Client,
) -> None:
    header = {"Authorization": f"Bearer {KEYS['all']}"}
    scraper = {"Authorization": f"Bearer {KEYS['scraper']}"}

    def count(labels: str) -> float:
        page = keyed.get("/metrics", headers=scraper).text
        (found,) = re.findall(re.escape(labels) + r" (\S+)", page)
        return float(found)

    seconds = 'viola_key_audio_seconds_total{key="all"}'
    before = count(seconds)
    with capture_logs() as logs:
        with connect(address(keyed), additional_headers=header) as line:
            line.send(json.dumps({"sample_rate": 16_000}))
            line.send(silence(1.5))
            line.send("no end")
            *_, last = rest(line)
        with pytest.raises(InvalidStatus), connect(address(keyed)):
            pass
        until(lambda: len([e for e in logs if e.get("method") == "WEBSOCKET"]) == 2)
    ended, refusal = (entry for entry in logs if entry.get("method") == "WEBSOCKET")
    assert (ended["method"], ended["route"]) == ("WEBSOCKET", "/v1/audio/stream")
    assert (ended["status"], ended["code"], ended["problem"]) == (101, 4400, "bad-request")
    assert (ended["key"], ended["audio_s"]) == ("all", 1.5)
    assert ended["bytes_in"] > 48_000
    assert ended["bytes_out"] > 100
    assert (refusal["status"], refusal["problem"]) == (401, "unauthorized")
    assert count(seconds) == before + 1.5
    labels = 'method="WEBSOCKET",route="/v1/audio/stream",status='
    assert count(f'viola_http_requests_total{{{labels}"401"}}') >= 1
    assert count(f'viola_http_requests_total{{{labels}"101"}}') >= 1


def test_a_page_of_ours_behind_a_proxy_that_changes_the_host_may_open_a_stream(
    client: httpx.Client,
) -> None:
    page = {"Origin": "https://public.example", "Sec-Fetch-Site": "same-origin"}
    with connect(address(client), additional_headers=page):
        pass
    page["Sec-Fetch-Site"] = "cross-site"
    with (
        pytest.raises(InvalidStatus) as refusal,
        connect(address(client), additional_headers=page),
    ):
        pass
    told(refusal.value, 403, "foreign-origin")


def handshaken(client: httpx.Client, line: socket.socket) -> None:
    line.connect((client.base_url.host, client.base_url.port or 0))
    line.settimeout(30)
    line.sendall(HANDSHAKE)
    assert b"101" in line.recv(4096)


def test_messages_that_do_not_end_make_room_for_newer_ones(serve: Serve) -> None:
    n_bytes = 1 << 20
    half = b"\x82\xff" + n_bytes.to_bytes(8, "big") + bytes(4) + bytes(n_bytes - 64)
    with serve(head_timeout_s=60) as client, ExitStack() as open_:
        lines = [open_.enter_context(socket.socket()) for _ in range(36)]
        for line in lines:
            handshaken(client, line)
            line.sendall(half)
        overloaded = (4503).to_bytes(2, "big") + b"overloaded"
        assert lines[0].recv(100).endswith(overloaded)
        with opened(client) as other:
            other.send(silence(1.5))
            other.send(END)
            assert [*rest(other)][-1]["object"] == "done"
        lines[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):  # it may still end its message
            lines[-1].recv(1)


@pytest.mark.slow
def test_pings_are_not_read_while_their_answers_are_not(serve: Serve) -> None:
    pings = (b"\x89\xfd" + bytes(4 + 125)) * 250_000
    with serve() as client, socket.socket() as line:
        for size in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            line.setsockopt(socket.SOL_SOCKET, size, 4096)
        handshaken(client, line)
        line.settimeout(3)
        with pytest.raises(TimeoutError):  # and not 32 MB of answers in memory
            line.sendall(pings)


def keep_sending(line: socket.socket, data: bytes) -> None:
    while True:
        line.sendall(data)


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_cut_off(serve: Serve) -> None:
    config = {"sample_rate": 16_000, "window_s": 0.16, "hop_s": 0.01}
    pcm = Frame(Opcode.BINARY, silence(30.0)).serialize(mask=True)
    with serve(idle_timeout_s=0.5, max_live_streams=1) as client, socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((client.base_url.host, client.base_url.port or 0))
        line.sendall(HANDSHAKE)
        assert b"101" in line.recv(100)
        line.sendall(Frame(Opcode.TEXT, json.dumps(config).encode()).serialize(mask=True))
        line.settimeout(60)
        with pytest.raises(ConnectionError):  # and not a line that is open for ever
            keep_sending(line, pcm)
        until(lambda: scraped(client)["viola_live_streams"] == 0)


HANDSHAKE = (
    b"GET /v1/audio/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
