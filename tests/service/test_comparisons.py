"""What compares a collection with itself: bounded before a vector is read, one at a time."""

import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.collections.records import Collection, Vectors
from service.collections.windows import Windows
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.traffic.test_refusals import refused

PATH = "/v1/collections/pond"
KINDS = ("duplicates", "map")


@pytest.fixture
def pond(serve: Serve, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service with a collection of three recordings, of which one may be a request at most."""
    with serve(data=tmp_path, max_inflight=1) as client:
        client.put(PATH, json={"granularity": "clip"})
        for hz in (110, 220, 440):
            sent = {"content": encoded(tone(0.2, hz=hz)), "params": {"id": str(hz)}}
            assert client.post(f"{PATH}/items", **sent).status_code == 201
        yield client


class Held:
    """Holds what would be computed until it is let go."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **options: Any) -> list[Any]:
        self.began.set()
        assert self.may_end.wait(20)
        return []


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held()
    monkeypatch.setattr("service.routes.collections.find_duplicates", held)
    yield held
    held.may_end.set()


@pytest.mark.parametrize("filter", [None, '{"metadata": {}}', '{"ids": ["110", "220"]}'])
@pytest.mark.parametrize("kind", KINDS)
def test_too_much_is_refused_before_a_vector_is_read(
    pond: httpx.Client, monkeypatch: pytest.MonkeyPatch, kind: str, filter: str | None
) -> None:
    def read(*args: Any) -> None:
        raise AssertionError("vectors are read")

    monkeypatch.setattr("service.collections.duplicates.MAX_WINDOWS", 1)
    monkeypatch.setattr("service.collections.positions.MAX_ITEMS", 1)
    for name in ("all", "of", "after"):
        monkeypatch.setattr(Windows, name, read)
    answer = pond.get(f"{PATH}/{kind}", params={} if filter is None else {"filter": filter})
    document = refused(answer, "too-many-to-compare")
    assert (document["limit"], document["observed"]) == (1, 2 if filter and "ids" in filter else 3)


def test_vectors_count_in_the_memory_of_all_requests(
    serve: Serve, pond: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.comparisons.COPIES", 1 << 30)
    for kind in KINDS:
        refused(pond.get(f"{PATH}/{kind}"), "too-much-memory")


def test_one_at_a_time_and_beside_requests_with_audio(pond: httpx.Client, held: Held) -> None:
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(pond.get(f"{PATH}/duplicates")))
    first.start()
    assert held.began.wait(20)
    for kind in KINDS:
        refused(pond.get(f"{PATH}/{kind}"), "overloaded")
    found = pond.post(f"{PATH}/search", json={"positive": [{"id": "110"}]})
    assert found.status_code == 200
    held.may_end.set()
    first.join()
    assert answers[0].json()["pairs"] == 0
    assert pond.get(f"{PATH}/map").status_code == 200


def test_the_place_of_a_client_that_left_is_free_once_the_thread_has_ended(
    pond: httpx.Client, held: Held
) -> None:
    with closing(HTTPConnection(pond.base_url.host, pond.base_url.port)) as leaving:
        leaving.request("GET", f"{PATH}/duplicates")
        assert held.began.wait(20)
    refused(pond.get(f"{PATH}/map"), "overloaded")
    held.may_end.set()
    until(lambda: pond.get(f"{PATH}/map").status_code == 200)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compared_when_its_collection_is_deleted_is_not_found(
    pond: httpx.Client, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    reading = Windows.all

    def read(self: Windows, collection: Collection) -> Vectors:
        found = reading(self, collection)
        assert pond.delete(PATH).status_code == 204  # while it is compared
        return found

    monkeypatch.setattr(Windows, "all", read)
    refused(pond.get(f"{PATH}/{kind}"), "collection-not-found")
