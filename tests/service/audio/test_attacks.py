"""Attacks on everything but the decoder, which has a file of its own: each is survived, cheaply."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from service.traffic.connections import MAX_HEAD_BYTES
from tests.hostile import CHUNKS, END, FILE_NAMES, FORM, FORMS, LENGTHS, PART, PLAYLISTS
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.traffic.test_refusals import refused

URL = "/v1/audio/embeddings"


@contextmanager
def line_to(client: httpx.Client) -> Iterator[socket.socket]:
    """A connection on which anything can be sent."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 20) as line:
        yield line


def all_of(line: socket.socket) -> bytes:
    """What comes until the service hangs up."""
    answer = b""
    try:
        while received := line.recv(65_536):
            answer += received
    except ConnectionResetError:
        pass
    return answer


# File names


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_file_name_is_only_ever_echoed_and_that_made_printable(
    client: httpx.Client, name: str
) -> None:
    with capture_logs() as logs:
        answer = client.post(URL, files={"file": (name, encoded(tone()))})
        until(lambda: any(entry["event"] == "request" for entry in logs))
    if answer.status_code == 200:
        shown = answer.json()["data"][0]["file"]
        assert shown.isprintable()
        assert len(shown) <= 128
    assert answer.status_code in (200, 400)
    assert "X-Injected" not in answer.headers
    assert not Path("/tmp/viola-was-here").exists()
    assert "viola-was-here" not in str(logs)


# Forms


def test_a_form_with_megabytes_around_the_parts_is_read_in_no_time(client: httpx.Client) -> None:
    started = time.monotonic()
    for body in (
        b"x" * 5_000_000 + b"\r\n" + PART,
        PART + encoded(tone()) + END + b"x" * 5_000_000,
    ):
        answer = client.post(URL, content=body, headers=FORM)
        assert answer.status_code in (200, 400)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS.keys())
def test_a_form_of_too_much_of_anything_is_refused_in_no_time(
    client: httpx.Client, body: bytes
) -> None:
    started = time.monotonic()
    answer = client.post(URL, content=body, headers=FORM)
    assert answer.status_code in (400, 413)
    assert time.monotonic() - started < 5
    assert client.get("/livez").status_code == 200


def test_a_boundary_that_is_absurd_is_refused(client: httpx.Client) -> None:
    for boundary in ("", "x" * 7_000, '"'):
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        assert client.post(URL, content=PART + END, headers=headers).status_code == 400


# Slowness


def test_a_body_that_trickles_is_given_up_with_the_rate_that_was_expected(serve: Serve) -> None:
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    with serve(body_grace_s=0.3, min_body_bytes_per_s=1000) as client, line_to(client) as line:
        started = time.monotonic()
        line.sendall(head.encode())
        line.settimeout(0.05)
        answer = b""
        while b"}" not in answer and time.monotonic() - started < 10:
            if not answer:
                line.sendall(b"x")
            try:
                answer += line.recv(65_536)  # head and body may come one after the other
            except TimeoutError:
                continue
        assert 0.25 < time.monotonic() - started < 5
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        assert b'"limit":1000.0' in answer


def test_a_body_that_moves_may_take_longer_than_the_grace(serve: Serve) -> None:
    wav = encoded(tone())

    def slowly() -> Iterator[bytes]:
        for first in range(0, len(wav), 4000):
            time.sleep(0.05)
            yield wav[first : first + 4000]

    with serve(body_grace_s=0.1, min_body_bytes_per_s=10_000) as client:
        assert client.post(URL, content=slowly()).status_code == 200


def test_a_connection_that_sends_no_request_is_closed(serve: Serve) -> None:
    with serve(head_timeout_s=0.3) as client, line_to(client) as silent, line_to(client) as slow:
        started = time.monotonic()
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        for _ in range(3):  # each would restart a timeout that counts from the last byte
            time.sleep(0.08)
            slow.sendall(b"X: y\r\n")
        assert all_of(silent) == all_of(slow) == b""
        assert time.monotonic() - started < 5
        assert client.get("/livez").status_code == 200


def test_a_second_request_on_a_connection_must_not_dawdle_either(serve: Serve) -> None:
    with serve(head_timeout_s=0.3) as client, line_to(client) as line:
        line.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += line.recv(65_536)
        line.sendall(b"GET /li")
        started = time.monotonic()
        assert all_of(line) == b""
        assert 0.2 < time.monotonic() - started < 4


def test_a_body_that_goes_on_after_its_refusal_is_cut(serve: Serve) -> None:
    head = "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with serve(head_timeout_s=0.3) as client, line_to(client) as line:
        line.sendall(head.encode())
        assert line.recv(65_536).startswith(b"HTTP/1.1 404")
        started = time.monotonic()
        is_open = True
        while is_open and time.monotonic() - started < 10:
            time.sleep(0.05)
            try:
                line.sendall(b"x")
            except OSError:
                is_open = False
        assert 0.2 < time.monotonic() - started < 5


def test_requests_in_hand_are_not_touched_by_the_timeout_of_heads(serve: Serve) -> None:
    with serve(head_timeout_s=0.2) as client:
        files = [("file", ("a", encoded(tone(60.0), kind="FLAC")))] * 8
        assert client.post(URL, files=files).status_code == 200


def test_a_head_without_end_is_refused(client: httpx.Client) -> None:
    with line_to(client) as line:
        line.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20_000)
        assert_head_too_large(all_of(line))


def test_a_head_that_comes_whole_is_no_longer_than_one_that_does_not(client: httpx.Client) -> None:
    answer = client.get("/livez", headers={"X": "y" * 20_000})
    assert answer.status_code == 431
    assert answer.json()["limit"] == MAX_HEAD_BYTES
    assert client.get("/livez", headers={"X": "y" * 15_000}).status_code == 200


def assert_head_too_large(answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in head.lower()
    problem = json.loads(body)
    assert problem["type"] == "/problems/head-too-large"
    assert problem["limit"] == MAX_HEAD_BYTES < problem["observed"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"HELO mail.example.org\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem_and_the_door(client: httpx.Client, sent: bytes) -> None:
    with line_to(client) as line:
        line.sendall(sent)
        head, _, body = all_of(line).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["type"] == "/problems/bad-request"


# Framing


def chunked(chunks: bytes) -> bytes:
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + chunks


def test_many_tiny_chunks_are_a_body_like_any_other(client: httpx.Client) -> None:
    wav = encoded(tone(0.5))
    with line_to(client) as line:
        started = time.monotonic()
        line.sendall(chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in wav) + b"0\r\n\r\n"))
        assert all_of(line).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("chunks", CHUNKS)
def test_chunks_that_lie_are_refused_or_cut(client: httpx.Client, chunks: bytes) -> None:
    with line_to(client) as line:
        line.sendall(chunked(chunks))
        line.shutdown(socket.SHUT_WR)
        answer = all_of(line)
    assert not answer or answer.split()[1][:1] == b"4"
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("headers", LENGTHS)
def test_lengths_that_contradict_each_other_are_refused(client: httpx.Client, headers: str) -> None:
    with line_to(client) as line:
        line.sendall(f"POST {URL} HTTP/1.1\r\nHost: x\r\n{headers}\r\nhello".encode())
        line.shutdown(socket.SHUT_WR)
        answer = all_of(line)
    assert answer.split()[1] in (b"400", b"501"), answer


def test_the_limit_counts_what_arrives_not_what_is_announced(serve: Serve) -> None:
    with serve(max_body_bytes=10_000) as client:
        with line_to(client) as line:
            line.sendall(chunked(b"2710\r\n" + bytes(10_000) + b"\r\n" + b"1\r\nx\r\n0\r\n\r\n"))
            assert all_of(line).startswith(b"HTTP/1.1 413")
        assert client.get("/livez").status_code == 200


# What a body may make the service do


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An address that nobody has any business with."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        yield server


@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_a_playlist_makes_the_service_call_nobody(
    client: httpx.Client, listener: socket.socket, playlist: str
) -> None:
    port = listener.getsockname()[1]
    body = playlist.format(url=f"http://127.0.0.1:{port}/clip.wav", port=port).encode()
    refused(client.post(URL, files={"file": ("list.m3u8", body)}), "unsupported-format")
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize("name", ["url", "input", "file_url", "path"])
def test_no_parameter_makes_the_service_fetch_or_open_anything(
    client: httpx.Client, listener: socket.socket, name: str
) -> None:
    for value in (f"http://127.0.0.1:{listener.getsockname()[1]}/", "file:///etc/passwd"):
        answer = client.post(URL, content=encoded(tone()), params={name: value})
        refused(answer, "invalid-parameter")
    with pytest.raises(TimeoutError):
        listener.accept()


def test_models_come_from_the_folder_alone(client: httpx.Client) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/v1/models", "/v1/models/tiny", "/v1/classifiers"):
            if (method, path) != ("POST", "/v1/classifiers"):  # of labels, where these are kept
                assert client.request(method, path, content=b"x").status_code == 405
    refused(client.post("/v1/classifiers", content=b"x"), "collections-off")
    for name in ("../tiny", "/etc/passwd", "tiny.onnx", "http://example.com/m.onnx"):
        answer = client.post(URL, content=encoded(tone()), params={"model": name})
        refused(answer, "model-not-found")


def test_nothing_a_client_sends_breaks_a_line_of_the_log(client: httpx.Client) -> None:
    with capture_logs() as logs:
        client.get("/nowhere%0A%7B%22event%22%3A%22forged%22%7D")
        client.post(URL, content=encoded(tone()), params={"model": 'x\n{"event":"forged"}'})
        client.post(
            URL,
            content=b"x",
            headers={"Content-Type": "audio/\u2028x".encode("latin-1", "replace")},
        )
        client.get("/livez", headers={"X-Request-ID": "a\tb"})
        assert client.get("/livez", headers={"User-Agent": "\x1b[2J"}).status_code == 400
        until(lambda: sum(entry["event"] == "request" for entry in logs) >= 4)
    for entry in logs:
        assert all(str(value).isprintable() for value in entry.values()), entry


def test_noise_that_decoders_comment_on_reaches_no_answer(client: httpx.Client) -> None:
    noise = b"\xff\xfb\x90\x00" + os.urandom(20_000)
    text = client.post(URL, content=noise).text
    assert "Note:" not in text
    assert "object at 0x" not in text
