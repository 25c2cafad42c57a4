"""One budget of bytes for what requests hold in memory, until the last byte has left."""

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import orjson
import pytest

from service.exceptions import ServiceError
from service.threads import to_the_end
from service.traffic.budget import Budget
from tests import hostile
from tests.service.conftest import Serve, encoded, tone, until

URL = "/v1/audio/embeddings"
INFER = "/v2/models/tiny/infer"


def held(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("viola_memory_bytes "))


def test_what_does_not_fit_waits_and_is_then_refused() -> None:
    async def run() -> None:
        budget = Budget(100, wait_s=0.05)
        with budget.share() as one, budget.share() as other:
            await one.take(80)
            with pytest.raises(ServiceError) as full:
                await other.take(30)
            assert full.value.reason == "overloaded"
            assert full.value.retry_after_s
            asyncio.get_running_loop().call_later(0.01, one.give, 60)
            await other.take(30)
            assert budget.used == 50
            with pytest.raises(ServiceError) as never:
                await other.take(71)
            assert never.value.reason == "too-much-memory"
        assert budget.used == 0

    asyncio.run(run())


def test_uploads_leave_room_for_what_becomes_of_them() -> None:
    async def run() -> None:
        budget = Budget(100, wait_s=0.02)
        with budget.share() as one, budget.share() as other:
            await one.take(40, is_upload=True)
            with pytest.raises(ServiceError):
                await other.take(40, is_upload=True)
            await one.take(60)

    asyncio.run(run())


def test_who_holds_memory_goes_first_and_a_large_upload_is_not_overtaken() -> None:
    async def run() -> None:
        budget, served = Budget(100, wait_s=20), list[str]()
        shares = {name: budget.share() for name in ("others", "large", "next", "older", "newer")}
        shares["others"].take_now(100)

        async def take(name: str, n_bytes: int, *, is_upload: bool) -> None:
            await shares[name].take(n_bytes, is_upload=is_upload)
            served.append(name)

        waiting = [
            asyncio.create_task(take(name, n_bytes, is_upload=is_upload))
            for name, n_bytes, is_upload in (
                ("large", 30, True),
                ("next", 5, True),
                ("older", 45, False),
                ("newer", 15, False),
            )
        ]
        await asyncio.sleep(0)
        shares["others"].give(30)
        await asyncio.wait([waiting[3]])
        assert served == ["newer"]  # fits, ends, and gives back what the older one waits for
        for name, n_bytes in (("newer", 15), ("others", 30)):
            shares[name].give(n_bytes)
        await asyncio.wait([waiting[2]])
        assert served == ["newer", "older"]
        for name in ("others", "older"):
            shares[name].give(shares[name].held)
        await asyncio.wait(waiting)
        assert served == ["newer", "older", "large", "next"]

    asyncio.run(run())


def test_who_holds_little_does_not_wait_for_those_that_hold_much() -> None:
    async def run() -> None:
        budget = Budget(128, wait_s=20)
        with budget.share() as large, budget.share() as other, budget.share() as small:
            await large.take(40, is_upload=True)
            waiting = asyncio.create_task(other.take(40, is_upload=True))
            await asyncio.sleep(0)
            async with asyncio.timeout(1):
                await small.take(1, is_upload=True)  # past the upload that waits
                await large.take(71)
                await small.take(1)
            assert budget.used == 113
            assert not large.try_now(1)  # what is left is for small ones
            assert small.try_now(14)  # 16 of 128, with which it is decoded
            assert not small.try_now(1)  # it is none any more
            small.give(small.held)
            large.give(large.held)
            await waiting

    asyncio.run(run())


def test_who_is_alone_may_hold_everything() -> None:
    async def run() -> None:
        budget = Budget(128, wait_s=0.01)
        with budget.share() as only:
            await only.take(100, is_upload=True)
            await only.take(28)
            assert budget.used == 128

    asyncio.run(run())


def test_who_gives_back_while_waiting_is_alone_with_what_is_left() -> None:
    async def run() -> None:
        budget = Budget(128, wait_s=1)
        with budget.share() as one, budget.share() as other:
            await one.take(90)
            await other.take(20)
            waiting = asyncio.create_task(one.take(38))  # for another of its files
            await asyncio.sleep(0)
            one.give(10)
            other.give(20)
            await waiting
            assert budget.used == one.held == 118

    asyncio.run(run())


def test_many_files_of_ordinary_size_wait_for_each_other_and_are_all_answered(serve: Serve) -> None:
    wav = encoded(tone(60.0))
    with serve(memory_bytes=48 << 20) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.post(URL, content=wav), range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8
        until(lambda: held(client) == 0)


@pytest.fixture
def parsing(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Told when a body is parsed, and waited for before that ends."""
    begun, go_on, loads = threading.Event(), threading.Event(), orjson.loads

    def slow(content: bytes) -> object:
        begun.set()
        go_on.wait(20)
        return loads(content)

    monkeypatch.setattr("service.formats.json_body.orjson.loads", slow)
    yield begun, go_on
    go_on.set()


def test_parsing_has_the_deadline_and_keeps_place_and_memory_to_its_end(
    serve: Serve, parsing: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = parsing
    body = {"input": base64.b64encode(encoded(tone())).decode()}
    with serve(request_timeout_s=0.3, max_inflight=1) as client, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.post, "/v1/embeddings", json=body)
        assert begun.wait(20)
        time.sleep(0.5)
        assert held(client) > 0
        assert client.post(URL, content=encoded(tone())).status_code == 503
        go_on.set()
        assert answer.result().status_code == 504
        until(lambda: held(client) == 0)
        assert client.get("/metrics").text.count("viola_inflight_requests 0.0") == 1


def test_who_leaves_while_the_body_is_parsed_is_not_decoded(
    serve: Serve, parsing: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = parsing
    body = json.dumps({"input": base64.b64encode(encoded(tone())).decode()})
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with serve() as client:
        address = (client.base_url.host, client.base_url.port or 80)
        with socket.create_connection(address) as line:
            line.sendall((head + body).encode())
            assert begun.wait(20)
        assert held(client) > 0
        time.sleep(0.3)  # for the service to notice: nothing tells when
        go_on.set()
        until(lambda: held(client) == 0)
        until(lambda: "viola_inflight_requests 0.0" in client.get("/metrics").text)
        assert 'viola_audio_seconds_total{result="decoded"} 0.0' in client.get("/metrics").text


def test_a_file_of_some_megabytes_in_base64_is_answered(serve: Serve) -> None:
    body = {"input": base64.b64encode(encoded(tone(120.0), rate=24_000)).decode()}
    with serve() as client:
        assert len(body["input"]) > 5_000_000
        assert client.post("/v1/embeddings", json=body).status_code == 200
        until(lambda: held(client) == 0)


def test_who_is_cancelled_while_waiting_holds_nothing() -> None:
    async def run() -> None:
        budget = Budget(100, wait_s=5)
        with budget.share() as one, budget.share() as other:
            await one.take(80)
            waiting = asyncio.create_task(other.take(50))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
            one.give(80)
            assert (budget.used, other.held) == (0, 0)

    asyncio.run(run())


def test_a_cancelled_request_waits_for_the_thread_that_works_for_it() -> None:
    goes_on = threading.Event()

    async def run() -> None:
        work = asyncio.ensure_future(asyncio.to_thread(goes_on.wait, 10))
        waiting = asyncio.create_task(to_the_end(work))
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.sleep(0.02)
        assert not waiting.done()
        goes_on.set()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert work.done()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("n", "refused"),
    [
        (17, (413, "/problems/too-many-files")),
        (8_000_000, (413, "/problems/too-many-files")),
        (1 << 62, (400, "/problems/invalid-parameter")),
    ],
)
def test_rows_are_counted_before_anything_is_made_of_them(
    client: httpx.Client, n: int, refused: tuple[int, str]
) -> None:
    started = time.monotonic()
    answer = client.post(INFER, content=hostile.rows(n))
    assert (answer.status_code, answer.json()["type"]) == refused
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("data", [[True], ["1"], [[1.0], [2.0]], [None], [[[1.0]]]])
def test_what_is_no_row_of_numbers_is_no_waveform(client: httpx.Client, data: list[object]) -> None:
    tensor = {"name": "waveform", "shape": [1, 1], "datatype": "FP32", "data": data}
    assert client.post(INFER, json={"inputs": [tensor]}).status_code == 400


def test_a_length_is_a_whole_number(client: httpx.Client) -> None:
    waveform = {"name": "waveform", "shape": [1, 9], "datatype": "FP32", "data": [0.0] * 9}
    length = {"name": "length", "shape": [1], "datatype": "INT64", "data": [8.7]}
    assert client.post(INFER, json={"inputs": [waveform, length]}).status_code == 400


def test_a_request_that_can_never_fit_is_a_413(serve: Serve) -> None:
    with serve(memory_bytes=32 << 20, max_body_bytes=60 << 20) as client:
        answer = client.post(URL, content=bytes(40 << 20))
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-much-memory")
        assert answer.json()["limit"] == 32 << 20
        assert client.post(URL, content=encoded(tone())).status_code == 200
        until(lambda: held(client) == 0)


def test_answers_that_nobody_reads_are_held_and_then_cut_off(serve: Serve) -> None:
    clip = encoded(tone(400.0), kind="FLAC")
    path = f"{URL}?window_s=0.02&hop_s=0.02&output=json"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(clip)}\r\n\r\n".encode()
    with serve(idle_timeout_s=1.0, max_windows=30_000) as client, ExitStack() as sockets:
        for _ in range(3):
            line = sockets.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect((client.base_url.host, client.base_url.port or 80))
            line.sendall(head + clip)
        until(lambda: held(client) > 0)
        until(lambda: held(client) == 0, 60)
        assert client.post(URL, content=encoded(tone())).status_code == 200


def test_a_long_answer_is_the_same_in_pieces(client: httpx.Client) -> None:
    clip = encoded(tone(60.0))
    asked = {"window_s": "0.02", "hop_s": "0.02"}
    answer = client.post(URL, content=clip, params=asked)
    assert "Content-Length" not in answer.headers
    windows = json.loads(answer.content)["data"][0]["windows"]
    assert len(windows) == answer.json()["usage"]["windows"] > 2_900
    until(lambda: held(client) == 0)
