"""Jobs over HTTP, with a real store and queue in a folder."""

import errno
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from service.collections.attempts import Attempts
from service.collections.records import StoreUnavailable
from service.collections.store import open_store
from service.jobs.receiving import HELD_BYTES
from service.queues.queue import Again
from service.traffic.auth import digest_of, new_key
from service.uploads.spool import write_whole
from tests.heads import write_head
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.test_teaching import fill
from tests.service.traffic.test_refusals import refused

Document = dict[str, Any]
SCOPES = {"ann": "embed,classify,search,teach,jobs", "ben": "embed,jobs", "eve": "embed"}
KEYS = {name: new_key() for name in SCOPES}
TONES = {f"tone-{hz}": encoded(tone(2.0, hz=hz)) for hz in (110, 430, 820)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def working(serve: Serve, folder: Path) -> Iterator[httpx.Client]:
    """A service that does jobs itself."""
    with serve(data=folder) as client:
        yield client


class Keyed:
    """A service with keys, as each of them sees it."""

    def __init__(self, client: httpx.Client) -> None:
        self.ann, self.ben, self.eve = (
            httpx.Client(
                base_url=client.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30
            )
            for key in KEYS.values()
        )

    def close(self) -> None:
        for client in (self.ann, self.ben, self.eve):
            client.close()


def parts(files: dict[str, bytes]) -> list[Any]:
    return [("file", (f"{name}.wav", content)) for name, content in files.items()]


def submit(client: httpx.Client, files: dict[str, bytes], **fields: Any) -> Document:
    texts = {name: json.dumps(value) for name, value in fields.items()}
    answer = client.post("/v1/jobs", files=parts(files), data=texts)
    assert answer.status_code == 202, answer.text
    job: Document = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    return job


def ended(client: httpx.Client, job: Document, timeout_s: float = 30) -> Document:
    """The job once it has ended."""
    path = f"/v1/jobs/{job['id']}"
    until(lambda: client.get(path).json()["state"] not in ("queued", "running"), timeout_s)
    shown: Document = client.get(path).json()
    return shown


def result(client: httpx.Client, job: Document) -> list[Document]:
    answer = client.get(f"/v1/jobs/{job['id']}/result")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_files_are_embedded_after_the_answer(working: httpx.Client) -> None:
    job = submit(working, TONES, embed={"window_s": 1.0})
    assert (job["state"], job["files"], job["kind"]) == ("queued", 3, "embed")
    done = ended(working, job)
    assert (done["state"], done["files_done"], done["files_failed"]) == ("done", 3, 0)
    assert (done["windows"], done["audio_seconds"]) == (6, pytest.approx(6.0, abs=0.01))
    lines = result(working, job)
    assert [line["object"] for line in lines] == 3 * [
        "file",
        "window",
        "window",
        "embedding",
        "done",
    ]
    at_once = working.post("/v1/audio/embeddings", files=parts(TONES)).json()["data"]
    for whole, expected in zip(lines[3::5], at_once, strict=True):
        assert whole["embedding"] == pytest.approx(expected["embedding"], abs=1e-5)
    assert [line["file"] for line in lines[::5]] == [f"{name}.wav" for name in TONES]


def test_a_job_that_finds_no_room_is_put_off_and_says_why_once(
    working: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = iter(range(3))

    def full(file: Any, parts: Any) -> None:
        if next(tries, None) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(file, parts)

    class Soon(Again):
        def __init__(self, after_s: float = 0.0) -> None:
            super().__init__(min(after_s, 0.05))

    monkeypatch.setattr("service.jobs.worker.write_whole", full)
    monkeypatch.setattr("service.jobs.worker.Again", Soon)
    monkeypatch.setattr("service.jobs.worker.LATER_S", 0.05)
    with capture_logs() as logs:
        job = submit(working, TONES, embed={})
        assert ended(working, job)["state"] == "done"
    (told,) = [line for line in logs if line["event"] == "job put off"]
    assert (told["job"], told["problem"], told["again_in_s"]) == (job["id"], "storage-full", 5.0)
    assert "TMPDIR" in told["reason"]
    told_by_default = [line["event"] for line in logs if line["log_level"] != "debug"]
    assert [event for event in told_by_default if event.startswith("job")] == [
        "job submitted",
        "job begun",
        "job put off",
        "jobs are done again",
        "job ended",
    ]


@pytest.mark.parametrize("method", ["begin", "end"])
def test_a_step_whose_database_fails_is_put_off_and_is_no_error(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fails(*_: Any) -> None:
        monkeypatch.undo()
        raise StoreUnavailable("The database fails.")

    with serve(data=tmp_path, job_lapse_s=1) as client:
        monkeypatch.setattr(Attempts, method, fails)
        with capture_logs() as logs:
            job = submit(client, TONES, embed={})
            assert ended(client, job)["state"] == "done"
    (told,) = [line for line in logs if line["event"] == "step put off"]
    assert (told["job"], told["reason"]) == (job["id"], "The database fails.")
    assert not [line for line in logs if line["log_level"] == "error"]


def test_a_job_is_done_where_no_folder_takes_temporary_files(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(tone(4.0))
    assert len(content) > HELD_BYTES
    with serve(data=tmp_path, max_body_bytes=3 * len(content), max_files=10**6) as client:
        # It takes its own memory, not that of a million, whether it tells its length or not
        submit(client, {"a": content}, embed={})
        form = client.build_request("POST", "/v1/jobs", files=parts({"a": content}))
        sent = {
            "content": iter([form.read()]),
            "headers": {"Content-Type": form.headers["Content-Type"]},
        }
        refused(client.post("/v1/jobs", **sent), "invalid-parameter")  # says what is to be done
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        job = submit(client, {"a": content, "b": content}, embed={})
        done = ended(client, job)
        assert (done["state"], done["files_failed"]) == ("done", 0)
        many = parts({name: content for name in "abc"})
        refused(client.post("/v1/jobs", files=many, data={"embed": "{}"}), "body-too-large")


def test_a_result_goes_on_behind_a_file_whose_lines_fill_their_last_part(
    working: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that ends a file is empty then."""
    monkeypatch.setattr("service.jobs.worker.PART_BYTES", 1)
    job = submit(working, TONES, embed={"window_s": 1.0})
    assert ended(working, job)["state"] == "done"
    assert [line["file"] for line in result(working, job) if line["object"] == "file"] == [
        f"{name}.wav" for name in TONES
    ]


@pytest.fixture(scope="module")
def served(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and a classifier of it."""
    models = tmp_path_factory.mktemp("served")
    shutil.copy(model_file, models / "tiny.onnx")
    write_head(models / "pitch.onnx")
    return models


@pytest.fixture(scope="module")
def keyed(serve: Serve, served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A service with keys, which has a collection of ann's that can teach."""
    folder = tmp_path_factory.mktemp("keyed")
    store = open_store(folder)
    fill(store, "ann")
    store.close()
    lines = [f"{name}:{digest_of(KEYS[name])}:{SCOPES[name]}" for name in KEYS]
    lines[0] += ":::birds"
    settings = {"models": served, "data": folder, "api_keys": SecretStr(" ".join(lines))}
    with serve(**settings, fit_timeout_s=300.0) as client:
        keyed = Keyed(client)
        yield keyed
        keyed.close()


def test_files_are_labelled_as_the_route_labels_them(keyed: Keyed) -> None:
    asked = {"classifier": ["pitch"], "granularity": "window", "window_s": 1.0, "top_k": 1}
    job = submit(keyed.ann, TONES, classify=asked)
    assert job["asked"] == asked | {"model": "tiny"}
    assert ended(keyed.ann, job)["state"] == "done"
    lines = [line for line in result(keyed.ann, job) if line["object"] == "classification"]
    at_once = keyed.ann.post(
        "/v1/audio/classifications?classifier=pitch&top_k=1", files=parts(TONES)
    ).json()["data"]
    for line, expected in zip(lines, at_once, strict=True):
        assert line["predictions"][0]["label"] == expected["predictions"][0]["label"]


def test_files_become_items_once(keyed: Keyed) -> None:
    keyed.ann.put("/v1/collections/tones", json={"window_s": 1.0})
    items = [{"id": name, "metadata": {"hz": 1}} for name in TONES]
    for is_new in (True, False):
        job = submit(keyed.ann, TONES, index={"collection": "tones", "items": items})
        assert ended(keyed.ann, job)["state"] == "done"
        added = [line for line in result(keyed.ann, job) if line["object"] == "added"]
        assert [(one["item"]["id"], one["is_new"]) for one in added] == [
            (name, is_new) for name in TONES
        ]
    assert keyed.ann.get("/v1/collections/tones").json()["items"] == 3


def test_a_job_uses_the_collections_of_its_keys_groups(keyed: Keyed) -> None:
    keyed.ann.put("/v1/collections/birds:tones", json={"window_s": 1.0})
    job = submit(keyed.ann, {"a": TONES["tone-110"]}, index={"collection": "birds:tones"})
    done = ended(keyed.ann, job)
    assert (done["state"], done["files_failed"]) == ("done", 0)
    body = {"teach": {"name": "cats:x", "collection": "pond"}}
    refused(keyed.ann.post("/v1/jobs", json=body), "forbidden")


def test_labels_become_a_classifier(keyed: Keyed) -> None:
    job = keyed.ann.post("/v1/jobs", json={"teach": {"name": "pond", "collection": "pond"}}).json()
    done = ended(keyed.ann, job, 120)
    assert (done["state"], done["files"]) == ("done", 0), done
    (version,) = result(keyed.ann, job)
    assert (version["id"], version["version"], version["labels"]) == ("pond", 1, list("abc"))
    query = "/v1/audio/classifications?head=pond"
    assert keyed.ann.post(query, files=parts(TONES)).status_code == 200
    keyed.ann.put("/v1/collections/silent", json={"window_s": 1.0})
    empty = {"teach": {"name": "none", "collection": "silent"}}
    failed = ended(keyed.ann, keyed.ann.post("/v1/jobs", json=empty).json())
    assert (failed["state"], failed["error"]["code"]) == ("failed", "nothing-to-learn")
    refused(keyed.ann.post("/v1/jobs", json={"teach": {"name": "pitch", "collection": "pond"}}),
            "classifier-taken")  # fmt: skip


def test_what_waits_and_what_has_ended_is_in_the_metrics(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path, job_workers=0) as client:
        submit(client, {"a": TONES["tone-110"]}, embed={})
        submit(client, {"a": TONES["tone-110"]}, embed={})
        waiting = 'viola_jobs{kind="embed",state="queued"} 2.0'
        until(lambda: waiting in client.get("/metrics").text)
        page = client.get("/metrics").text
        assert 'viola_jobs{kind="map",state="running"} 0.0' in page
        assert re.search(r'^viola_jobs_oldest_seconds{kind="embed",state="queued"} \d', page, re.M)
        assert "viola_jobs_silent 0.0" in page
        assert "viola_jobs_store_up 1.0" in page
    with serve(data=tmp_path) as client:
        ended = 'viola_job_duration_seconds_count{kind="embed",state="done"} 2.0'
        until(lambda: ended in client.get("/metrics").text)
        assert 'viola_job_wait_seconds_count{kind="embed"} 2.0' in client.get("/metrics").text
        assert 'viola_jobs_begun_again_total{kind="embed"} 0.0' in client.get("/metrics").text


def test_a_collections_map_is_made_as_its_route_makes_it(keyed: Keyed) -> None:
    asked = {"collection": "pond", "clusters": 2, "seed": 3}
    job = keyed.ann.post("/v1/jobs", json={"map": asked}).json()
    assert (job["kind"], job["asked"]) == ("map", asked)
    done = ended(keyed.ann, job)
    assert (done["state"], done["files"]) == ("done", 0), done
    (found,) = result(keyed.ann, job)
    assert len(found["data"]) > 2
    query = {"clusters": 2, "seed": 3}
    assert found == keyed.ann.get("/v1/collections/pond/map", params=query).json()
    nothing = {"filter": {"metadata": {"none": "such"}}, "collection": "pond"}
    (empty,) = result(
        keyed.ann, ended(keyed.ann, keyed.ann.post("/v1/jobs", json={"map": nothing}).json())
    )
    assert empty["data"] == []
    refused(keyed.ann.post("/v1/jobs", json={"map": {"collection": "none"}}),
            "collection-not-found")  # fmt: skip
    refused(keyed.ben.post("/v1/jobs", json={"map": {"collection": "pond"}}), "forbidden")
    with_a_file = keyed.ann.post(
        "/v1/jobs", files=parts(TONES), data={"map": json.dumps({"collection": "pond"})}
    )
    refused(with_a_file, "missing-file")


def test_a_file_that_fails_stops_no_other(working: httpx.Client) -> None:
    job = submit(
        working, {"a": TONES["tone-110"], "b": b"no audio", "c": TONES["tone-430"]}, embed={}
    )
    done = ended(working, job)
    assert (done["state"], done["files_done"], done["files_failed"]) == ("done", 3, 1)
    lines = result(working, job)
    (error,) = [line["error"] for line in lines if line["object"] == "error"]
    assert error["type"] == "/problems/unsupported-format"
    assert sum(line["object"] == "embedding" for line in lines) == 2


def test_jobs_are_listed_shown_and_deleted(working: httpx.Client) -> None:
    first, second = (submit(working, {"a": TONES["tone-110"]}, embed={}) for _ in range(2))
    for job in (first, second):
        ended(working, job)
    page = working.get("/v1/jobs?limit=1").json()
    assert [job["id"] for job in page["data"]] == [second["id"]]
    page = working.get(f"/v1/jobs?limit=1&cursor={page['next_cursor']}").json()
    assert [job["id"] for job in page["data"]] == [first["id"]]
    assert working.get("/v1/jobs?state=queued").json()["data"] == []
    path = f"/v1/jobs/{first['id']}"
    assert working.delete(path).status_code == 204
    for answer in (working.get(path), working.get(f"{path}/result"), working.delete(path)):
        refused(answer, "job-not-found")


def test_a_job_that_runs_is_cancelled(working: httpx.Client) -> None:
    long = encoded(tone(300.0), kind="FLAC")
    job = submit(working, {"a": TONES["tone-110"], "b": long}, embed={"window_s": 0.02})
    path = f"/v1/jobs/{job['id']}"
    until(lambda: working.get(path).json()["files_done"] == 1)
    refused(working.get(f"{path}/result"), "job-not-done")
    assert working.post(f"{path}/cancel").status_code == 200
    done = ended(working, job)
    assert done["state"] == "cancelled"
    assert {line["file"] for line in result(working, job) if "file" in line} == {"a.wav"}
    refused(working.post(f"/v1/jobs/{32 * '0'}/cancel"), "job-not-found")


def test_a_job_goes_on_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    long = encoded(tone(300.0), kind="FLAC")
    with serve(data=tmp_path) as client:
        job = submit(client, {"a": TONES["tone-110"], "b": long}, embed={"window_s": 0.02})
        until(lambda: client.get(f"/v1/jobs/{job['id']}").json()["files_done"] == 1)
    with serve(data=tmp_path) as client:
        done = ended(client, job, 60)
        assert (done["state"], done["files_done"]) == ("done", 2)
        lines = result(client, job)
    assert sum(line["object"] == "embedding" for line in lines) == 2
    starts = [n for n, line in enumerate(lines) if line["object"] == "file"]
    indices = [line["index"] for line in lines[starts[1] :] if line["object"] == "window"]
    assert (len(starts), indices) == (2, list(range(len(indices))))
    assert len(indices) > 10_000


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({}, "invalid-parameter"),
        ({"embed": {}, "classify": {}}, "invalid-parameter"),
        ({"embed": {"window_s": -1}}, "invalid-parameter"),
        ({"embed": {"output": "npy"}}, "invalid-parameter"),
        ({"embed": {"stream": True}}, "invalid-parameter"),
        ({"embed": {}}, "missing-file"),
        ({"embed": {}, "uploads": [32 * "0"]}, "upload-not-found"),
        ({"embed": {"model": "none"}, "uploads": [32 * "0"]}, "model-not-found"),
        ({"classify": {"classifier": ["x"]}, "uploads": [32 * "0"]}, "classifier-not-found"),
        ({"index": {"collection": "none"}, "uploads": [32 * "0"]}, "collection-not-found"),
        ({"embed": {}, "uploads": [32 * "0"], "webhook": {"url": "x"}}, "invalid-parameter"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    working: httpx.Client, body: Document, slug: str
) -> None:
    before = working.get("/v1/jobs?limit=1").json()["data"]
    refused(working.post("/v1/jobs", json=body), slug)
    texts = {name: json.dumps(value) for name, value in body.items()}
    if slug not in ("missing-file", "upload-not-found"):
        refused(working.post("/v1/jobs", files=parts({"a": b"x"}), data=texts), slug)
    assert working.get("/v1/jobs?limit=1").json()["data"] == before


def test_a_form_that_is_refused_leaves_no_files(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path, max_job_bytes=10_0000) as client:
        for _ in range(3):
            refused(
                client.post("/v1/jobs", files=parts(TONES), data={"embed": "{"}), "uploads-full"
            )
        one = {"a": TONES["tone-110"]}
        refused(client.post("/v1/jobs", files=parts(one), data={"embed": "{"}), "invalid-parameter")
        assert ended(client, submit(client, one, embed={}))["state"] == "done"


def test_a_job_is_its_keys_and_needs_the_scopes_of_what_it_does(keyed: Keyed) -> None:
    job = submit(keyed.ann, {"a": TONES["tone-110"]}, embed={})
    path = f"/v1/jobs/{job['id']}"
    for answer in (
        keyed.ben.get(path),
        keyed.ben.get(f"{path}/result"),
        keyed.ben.post(f"{path}/cancel"),
        keyed.ben.delete(path),
    ):
        refused(answer, "job-not-found")
    assert keyed.ben.get("/v1/jobs").json()["data"] == []
    refused(keyed.eve.post("/v1/jobs", json={"embed": {}}), "forbidden")
    answer = keyed.ben.post(
        "/v1/jobs", files=parts({"a": TONES["tone-110"]}), data={"index": '{"collection":"tones"}'}
    )
    assert "lacks the scope search" in refused(answer, "forbidden")["detail"]


def test_a_job_is_charged_for_what_it_decodes(serve: Serve, tmp_path: Path) -> None:
    lines = f"ann:{digest_of(KEYS['ann'])}:embed,jobs:3"
    with serve(data=tmp_path, api_keys=SecretStr(lines)) as client:
        client.headers["Authorization"] = f"Bearer {KEYS['ann']}"
        job = submit(client, TONES, embed={})
        ended(client, job)
        until(lambda: client.post("/v1/jobs", json={"embed": {}}).status_code == 429)
        used = client.get("/v1/usage").json()["data"]
        assert used[0]["audio_seconds"] == pytest.approx(6.0, abs=0.01)


def test_without_a_store_the_routes_say_how_to_switch_jobs_on(client: httpx.Client) -> None:
    for answer in (
        client.post("/v1/jobs", json={"embed": {}}),
        client.get("/v1/jobs"),
        client.post("/v1/uploads", headers={"Upload-Length": "1"}),
    ):
        refused(answer, "collections-off")


def test_results_go_when_they_are_old(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path, job_kept_hours=1e-6) as client:
        job = submit(client, {"a": TONES["tone-110"]}, embed={})
        until(lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "done")
    with serve(data=tmp_path) as client:
        until(lambda: client.get(f"/v1/jobs/{job['id']}").status_code == 404)


def test_a_form_that_is_sent_again_makes_one_job(working: httpx.Client) -> None:
    sent = {"files": parts(TONES), "data": {"embed": "{}"}}
    headers = {"Idempotency-Key": "once"}
    first = working.post("/v1/jobs", **sent, headers=headers)
    again = working.post("/v1/jobs", **sent, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    other = {"files": parts(TONES), "data": {"embed": '{"window_s":1}'}}
    refused(working.post("/v1/jobs", **other, headers=headers), "job-differs")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"files": {"tone-110": TONES["tone-430"]}}, id="another sound"),
        pytest.param({"files": {"renamed": TONES["tone-110"]}}, id="another name"),
        pytest.param(
            {"webhook": {"url": "https://a.example/hook", "secret": "whsec_" + "A" * 32}},
            id="another to be told",
        ),
    ],
)
def test_a_key_of_another_request_is_refused(
    serve: Serve, tmp_path: Path, other: dict[str, Any]
) -> None:
    def send(client: httpx.Client, asked: dict[str, Any]) -> httpx.Response:
        files = parts(asked.get("files", {"tone-110": TONES["tone-110"]}))
        data = {"embed": "{}"}
        if "webhook" in asked:
            data["webhook"] = json.dumps(asked["webhook"])
        return client.post("/v1/jobs", files=files, data=data, headers={"Idempotency-Key": "once"})

    with serve(data=tmp_path, webhook_origins="https://a.example", job_workers=0) as client:
        first = send(client, {})
        refused(send(client, other), "job-differs")
        assert send(client, {}).json()["id"] == first.json()["id"]
        assert len(client.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize("path", ["/v1/jobs/x", "/v1/jobs/x/result", "/v1/uploads/x"])
def test_an_id_that_is_none_is_told_what_one_looks_like(keyed: Keyed, path: str) -> None:
    answer = keyed.ann.request("DELETE" if path.endswith("/x") else "GET", path)
    assert answer.status_code in (400, 422)
    assert "id = x is not accepted: expected 32 digits and letters from a to f" in answer.text


def test_a_name_that_is_none_is_told_what_one_looks_like(keyed: Keyed) -> None:
    answer = keyed.ann.get("/v1/collections/a b")
    assert "name = a b is not accepted: expected up to 64 letters of ASCII" in answer.text


def test_a_map_of_too_many_items_is_refused_when_it_is_asked_for(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.collections.positions.MAX_ITEMS", 0)
    answer = keyed.ann.post("/v1/jobs", json={"map": {"collection": "pond"}})
    problem = refused(answer, "too-many-to-compare")
    assert (problem["limit"], problem["unit"]) == (0, "items")
    nothing = {"collection": "pond", "filter": {"ids": ["none"]}}
    assert keyed.ann.post("/v1/jobs", json={"map": nothing}).status_code == 202
