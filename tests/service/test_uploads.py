"""Uploads that go on after a break, by the core of tus 1.0.0."""

import base64
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from service.traffic.auth import digest_of
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.test_jobs import KEYS, ended, result
from tests.service.traffic.test_budget import held
from tests.service.traffic.test_refusals import refused

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}
SOUND = encoded(tone(40.0))  # more than a part


@pytest.fixture(scope="module")
def keeping(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serve(data=tmp_path_factory.mktemp("data"), max_job_bytes=3 << 20) as client:
        yield client


def announce(client: httpx.Client, n_bytes: int = len(SOUND), name: str = "böe.wav") -> str:
    named = f"filename {base64.b64encode(name.encode()).decode()},other"
    headers = TUS | {"Upload-Length": str(n_bytes), "Upload-Metadata": named}
    answer = client.post("/v1/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Upload-Expires"].endswith("GMT")
    where: str = answer.headers["Location"]
    return where


def send(client: httpx.Client, where: str, data: bytes, offset: int) -> httpx.Response:
    headers = BYTES | {"Upload-Offset": str(offset)}
    return client.patch(where, content=data, headers=headers)


def offset(client: httpx.Client, where: str) -> int:
    answer = client.head(where, headers=TUS)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    return int(answer.headers["Upload-Offset"])


def test_what_uploads_can_do_is_told(keeping: httpx.Client) -> None:
    answer = keeping.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "creation,expiration,termination"
    assert answer.headers["Tus-Max-Size"] == str(2 << 30)


def test_an_upload_goes_on_after_a_restart_and_becomes_a_job(serve: Serve, tmp_path: Path) -> None:
    half = 700_001
    with serve(data=tmp_path) as client:
        where = announce(client)
        answer = send(client, where, SOUND[:half], 0)
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(half))
    with serve(data=tmp_path) as client:
        assert offset(client, where) == half
        assert send(client, where, SOUND[half:], half).status_code == 204
        shown = client.get(where).json()
        assert (shown["file"], shown["received"]) == ("böe.wav", shown["bytes"])
        job = client.post("/v1/jobs", json={"embed": {}, "uploads": [shown["id"]]}).json()
        assert ended(client, job)["state"] == "done"
        first, whole, _ = result(client, job)
        at_once = client.post("/v1/audio/embeddings", files={"file": SOUND}).json()["data"][0]
        assert first["file"] == "böe.wav"
        assert whole["embedding"] == pytest.approx(at_once["embedding"], abs=1e-4)
        refused(client.get(where), "upload-not-found")  # nothing of it is kept


def test_what_came_before_a_connection_broke_stays(keeping: httpx.Client) -> None:
    where = announce(keeping)
    host, port = keeping.base_url.host, keeping.base_url.port
    with socket.create_connection((host, port)) as line:
        head = (
            f"PATCH {where} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\nTus-Resumable: 1.0.0\r\n"
            f"Content-Type: {BYTES['Content-Type']}\r\nContent-Length: {len(SOUND)}\r\n\r\n"
        )
        line.sendall(head.encode() + SOUND[:123_456])
    until(lambda: offset(keeping, where) == 123_456)
    assert send(keeping, where, SOUND[123_456:], 123_456).status_code == 204
    assert keeping.delete(where, headers=TUS).status_code == 204


def test_what_is_on_its_way_holds_a_place_and_memory(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path, max_inflight=1) as client:
        where, other = announce(client), announce(client)
        patch = (
            f"PATCH {where} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\n"
            f"Content-Type: {BYTES['Content-Type']}\r\nContent-Length: {len(SOUND)}\r\n\r\n"
        )
        form_of_a_job = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 20}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
            + "x"
            * (128 << 10)
        )
        for begun, n_bytes in ((patch, 1 << 20), (form_of_a_job, 64 << 10)):
            address = (client.base_url.host, client.base_url.port)
            with socket.create_connection(address) as line:
                line.sendall(begun.encode())
                until(lambda n=n_bytes: held(client) >= n)
                refused(send(client, other, SOUND[:10], 0), "overloaded")
                form = {"file": ("a.wav", SOUND)}
                refused(client.post("/v1/jobs", files=form, data={"embed": "{}"}), "overloaded")
            until(lambda: held(client) == 0)
        assert send(client, other, SOUND[:10], 0).status_code == 204


def test_nobody_takes_all_places_of_what_is_on_its_way(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path, max_inflight=4) as client, ExitStack() as open_:
        where = [announce(client) for _ in range(3)]
        for one in where[:2]:
            address = (client.base_url.host, client.base_url.port)
            line = open_.enter_context(socket.create_connection(address))
            head = (
                f"PATCH {one} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\n"
                f"Content-Type: {BYTES['Content-Type']}\r\nContent-Length: {len(SOUND)}\r\n\r\n"
            )
            line.sendall(head.encode())
        until(lambda: held(client) >= 4 << 20)
        refused(send(client, where[2], SOUND[:10], 0), "share-exceeded")


def test_bytes_at_another_place_are_refused(keeping: httpx.Client) -> None:
    where = announce(keeping, 10)
    assert send(keeping, where, b"12345", 0).status_code == 204
    for data, place in ((b"12345", 0), (b"x", 6), (b"1234567", 5)):
        refused(send(keeping, where, data, place), "upload-conflict")
    assert offset(keeping, where) == 5
    answer = keeping.post("/v1/jobs", json={"embed": {}, "uploads": [where.rpartition("/")[2]]})
    assert "5 bytes have come, of 10" in refused(answer, "upload-conflict")["detail"]
    assert keeping.delete(where).status_code == 204
    refused(keeping.head(where) and keeping.get(where), "upload-not-found")


def test_what_is_no_upload_is_refused(keeping: httpx.Client) -> None:
    where = announce(keeping, 10)
    wrong = {"Tus-Resumable": "0.2.2"}
    answer = keeping.get(where, headers=wrong)
    refused(answer, "tus-version")
    assert answer.headers["Tus-Version"] == "1.0.0"
    plain = {"Content-Type": "application/octet-stream", "Upload-Offset": "0"}
    refused(keeping.patch(where, content=b"x", headers=plain), "unsupported-media-type")
    refused(keeping.patch(where, content=b"x", headers=BYTES), "invalid-parameter")
    refused(keeping.post("/v1/uploads"), "invalid-parameter")
    long = {"Upload-Length": str(3 << 30)}
    refused(keeping.post("/v1/uploads", headers=long), "body-too-large")
    bad = {"Upload-Length": "1", "Upload-Metadata": "filename %%%"}
    refused(keeping.post("/v1/uploads", headers=bad), "invalid-parameter")
    body = {"Upload-Length": "1"}
    refused(keeping.post("/v1/uploads", headers=body, content=b"x"), "bad-request")
    keeping.delete(where)


def test_an_announcement_has_no_body_however_it_is_sent(keeping: httpx.Client) -> None:
    headers = BYTES | {"Upload-Length": "5"}
    refused(keeping.post("/v1/uploads", headers=headers, content=b"hello"), "bad-request")
    chunks = iter([b"he", b"llo"])  # sent without Content-Length
    refused(keeping.post("/v1/uploads", headers=headers, content=chunks), "bad-request")


def test_a_key_has_room_for_so_many_bytes(keeping: httpx.Client) -> None:
    where = announce(keeping, 2 << 20)
    answer = keeping.post("/v1/uploads", headers={"Upload-Length": str(2 << 20)})
    document = refused(answer, "uploads-full")
    assert (document["limit"], document["observed"]) == (3 << 20, 4 << 20)
    keeping.delete(where)
    keeping.delete(announce(keeping, 2 << 20))


def test_an_upload_is_its_keys_and_expires(serve: Serve, tmp_path: Path) -> None:
    lines = " ".join(f"{name}:{digest_of(KEYS[name])}:embed,jobs" for name in ("ann", "ben"))
    keys = {name: {"Authorization": f"Bearer {KEYS[name]}"} for name in ("ann", "ben")}
    with serve(data=tmp_path, api_keys=SecretStr(lines)) as client:
        client.headers.update(keys["ann"])
        where = announce(client, 10)
        refused(client.get(where, headers=keys["ben"]), "upload-not-found")
        answer = client.post(
            "/v1/jobs",
            json={"embed": {}, "uploads": [where.rpartition("/")[2]]},
            headers=keys["ben"],
        )
        refused(answer, "upload-not-found")
        assert offset(client, where) == 0
    with serve(data=tmp_path, api_keys=SecretStr(lines), upload_kept_hours=1e-6) as client:
        client.headers.update(keys["ann"])
        short = announce(client, 10)
    with serve(data=tmp_path, api_keys=SecretStr(lines)) as client:
        client.headers.update(keys["ann"])
        until(lambda: client.get(short).status_code == 404)
        assert offset(client, where) == 0
