"""What happens when much is asked for at once, or slowly."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from structlog.testing import capture_logs

from service.problem_types import PROBLEM_TYPES
from service.problems import Problem
from service.traffic.admission import Admission
from tests.service.conftest import Serve, encoded, tone, until

URL = "/v1/audio/embeddings"
WAV = {"Content-Type": "audio/wav"}


@contextmanager
def unfinished(client: httpx.Client) -> Iterator[socket.socket]:
    """A request of which half the body has arrived."""
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\nContent-Length: 200\r\n\r\n"
    )
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 10) as line:
        line.sendall(head.encode() + bytes(100))
        time.sleep(0.1)  # until the service has begun to read it
        yield line


def test_the_service_answers_others_while_it_decodes(client: httpx.Client) -> None:
    slow = encoded(np.zeros(200 * 48_000, np.int16), rate=48_000, kind="FLAC")
    files = [("file", ("slow", slow))] * 3
    with ThreadPoolExecutor(1) as thread, httpx.Client(base_url=client.base_url) as other:
        request = thread.submit(client.post, URL, files=files)
        waits = []
        while not request.done():
            started = time.perf_counter()
            assert other.get("/livez").status_code == 200
            waits.append(time.perf_counter() - started)
        answer = request.result()
    assert answer.status_code == 200
    timing = dict(s.split(";dur=") for s in answer.headers["Server-Timing"].split(", "))
    assert len(waits) > 5
    assert max(waits) < float(timing["decode"]) / 1000 / 2


def test_one_request_more_than_are_accepted_is_refused_at_once(serve: Serve) -> None:
    with serve(max_inflight=1) as client:
        with unfinished(client):
            answer = client.post(URL, content=encoded(tone()), headers=WAV)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            document = answer.json()
            assert document["type"] == PROBLEM_TYPES["overloaded"].uri
            assert (document["limit"], document["observed"]) == (1, 2)
            assert client.get("/readyz").status_code == 200
        until(lambda: client.post(URL, content=encoded(tone()), headers=WAV).status_code == 200)


def test_what_has_no_place_is_refused_unread_but_streams_have_their_own(serve: Serve) -> None:
    asked = {
        ("?hop_s=nonsense", "*/*"): 503,
        ("?stream=true&hop_s=nonsense", "*/*"): 400,
        ("?stream=true&window_s=1", "*/*"): 200,
        ("?%73tream=true&window_s=1", "*/*"): 200,
        ("?window_s=1", "text/event-stream"): 200,
    }
    with serve(max_inflight=1) as client, unfinished(client):
        for (query, accept), status in asked.items():
            headers = WAV | {"Accept": accept}
            answer = client.post(f"{URL}{query}", content=encoded(tone()), headers=headers)
            assert answer.status_code == status, (query, accept, answer.text)


@pytest.mark.parametrize("limit", ["max_inflight", "max_inflight_per_key"])
def test_a_refusal_tells_what_is_left_of_the_quota(serve: Serve, limit: str) -> None:
    with serve(**{limit: 1}, audio_seconds_per_minute=60) as client, unfinished(client):
        answer = client.post(URL, content=encoded(tone()), headers=WAV)
    assert answer.status_code == (503 if limit == "max_inflight" else 429)
    assert answer.headers["RateLimit"].startswith('"audio";r=60;')
    assert answer.headers["Retry-After"] == "1"


def test_a_refusal_is_one_line_of_the_log_with_its_reason(serve: Serve) -> None:
    with serve(max_inflight=1) as client, unfinished(client), capture_logs() as logs:
        assert client.post(URL, content=encoded(tone()), headers=WAV).status_code == 503
        until(lambda: len(logs) > 0)
    (line, *_) = logs
    assert (line["event"], line["status"], line["problem"]) == ("request", 503, "overloaded")
    assert line["detail"].startswith("1 requests are in hand")


def test_a_body_that_does_not_arrive_is_given_up(serve: Serve) -> None:
    with serve(max_inflight=1, body_timeout_s=0.3) as client:
        with unfinished(client) as line:
            answer = b""
            while received := line.recv(65_536):  # until the service hangs up
                answer += received
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"/problems/body-timeout" in body
        assert client.post(URL, content=encoded(tone()), headers=WAV).status_code == 200


def test_requests_at_the_same_time_get_what_they_get_alone(client: httpx.Client) -> None:
    files = [encoded(tone(0.3 + 0.2 * k, hz=100 + 50 * k)) for k in range(8)]

    def embed(data: bytes) -> list[float]:
        answer = client.post(URL, content=data, headers=WAV)
        vector: list[float] = answer.json()["data"][0]["embedding"]
        return vector

    alone = [embed(data) for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(embed, files))
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_what_nobody_waits_for_any_more_is_not_inferred(client: httpx.Client) -> None:
    slow = encoded(np.zeros(200 * 48_000, np.int16), rate=48_000, kind="FLAC")
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/flac\r\n"
    with capture_logs() as logs:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as line:
            line.sendall(f"{head}Content-Length: {len(slow)}\r\n\r\n".encode() + slow)
        until(lambda: any(entry["event"] == "request" for entry in logs))
    requests = [entry for entry in logs if entry["event"] == "request"]
    assert [entry["status"] for entry in requests] == [499]


def test_a_full_queue_refuses_at_once_and_before_the_body_is_read(serve: Serve) -> None:
    clip = encoded(tone(10.0))
    with serve(max_queue_s=5.0, inferences=1, max_inflight=100) as client:

        def post(_: int) -> httpx.Response:
            return client.post(URL, content=clip, headers=WAV)

        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(post, range(200)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in refused:
        document = answer.json()
        assert (document["limit"], document["unit"]) == (5.0, "s")
        assert document["observed"] > 5
        assert answer.headers["Retry-After"] == "1"


def test_a_deadline_that_passes_is_a_504(serve: Serve) -> None:
    slow = encoded(np.zeros(200 * 48_000, np.int16), rate=48_000, kind="FLAC")
    with serve(request_timeout_s=0.05) as client:
        answer = client.post(URL, content=slow)
        assert answer.status_code == 504
        document = answer.json()
        assert document["type"] == PROBLEM_TYPES["deadline"].uri
        assert (document["limit"], document["unit"]) == (0.05, "s")
        until(lambda: client.post(URL, content=encoded(tone(0.1))).status_code == 200)


def test_what_is_in_hand_and_what_waits_both_close_the_door() -> None:
    waiting = 0.0
    door = Admission(2, 5.0, lambda: waiting)
    with door.slot(), door.slot(), pytest.raises(Problem, match="2 requests are in hand"):
        door.slot().__enter__()
    waiting = 5.1
    with pytest.raises(Problem, match="5 s of audio wait already"):
        door.slot().__enter__()
    waiting = 0.0
    with door.slot():
        assert door.inflight == 1
