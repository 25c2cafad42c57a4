"""What things may be called: nothing that an address, a table or a database takes for another."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

import viola
from service.naming import is_name
from service.parameters import LISTS
from tests.service.conftest import Serve, encoded, tone
from tests.service.traffic.test_refusals import refused

PATH = "/v1/collections/pond"
WAV = encoded(tone(1.0))


@pytest.fixture(scope="module")
def pond(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serve(data=tmp_path_factory.mktemp("data")) as client:
        assert client.put(PATH, json={"granularity": "clip"}).status_code == 201
        added = client.post(f"{PATH}/items", content=WAV, params={"id": "a"})
        assert added.status_code == 201
        yield client


@pytest.mark.parametrize("dots", [".", "..", "..."])
def test_no_name_is_a_folder_to_whoever_puts_an_address_together(
    pond: httpx.Client, dots: str
) -> None:
    other = encoded(tone(1.0, hz=880))
    refused(pond.post(f"{PATH}/items", content=other, params={"id": dots}), "invalid-parameter")
    escaped = dots.replace(".", "%2e")
    refused(pond.put(f"/v1/collections/{escaped}"), "invalid-parameter")
    taught = {"name": dots, "collection": "pond"}
    refused(pond.post("/v1/classifiers", json=taught), "invalid-parameter")
    assert not is_name(dots)
    assert pond.get(PATH).json()["items"] == 1


@pytest.mark.parametrize("name", ["a/b", "a b", "", "x" * 65, "a\n", "é", ".."])
def test_commands_make_no_collection_that_requests_cannot_name(tmp_path: Path, name: str) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(WAV)
    command = ["index", str(sound), "-o", str(tmp_path / "data"), "--collection", name]
    result = CliRunner().invoke(viola.build(), command)
    assert result.exit_code == 2
    assert "expected up to 64" in result.stderr


def test_an_id_is_the_same_in_both_forms_of_unicode(pond: httpx.Client) -> None:
    content = encoded(tone(1.0, hz=660))
    added = pond.post(f"{PATH}/items", content=content, params={"id": "e\u0301"})
    assert added.json()["data"][0]["item"]["id"] == "\u00e9"
    for form in ("e\u0301", "\u00e9"):
        assert pond.get(f"{PATH}/items/{quote(form)}").status_code == 200
        labels = {"labels": [{"item": form, "label": form}]}
        assert pond.post(f"{PATH}/labels", json=labels).status_code == 201
        found = pond.post(f"{PATH}/search", json={"positive": [{"id": form}]})
        assert found.status_code == 200
        listed = pond.get(f"{PATH}/labels", params={"label": form}).json()["data"]
        assert {one["label"] for one in listed} == {"\u00e9"}
    assert pond.delete(f"{PATH}/items/{quote(form)}").status_code == 204


@pytest.mark.parametrize("label", ["", " ", "a ", "a\tb", "a\nb", "a\x00", "\u2028", "x" * 129])
def test_a_label_is_one_line_that_files_of_labels_can_hold(pond: httpx.Client, label: str) -> None:
    labels = {"labels": [{"item": "a", "label": label}]}
    refused(pond.post(f"{PATH}/labels", json=labels), "invalid-parameter")


@pytest.mark.parametrize(
    "label", ["owl, barn", "\u0645\u06cc\u200c\u062e", "\U0001f989", "=1+1", "-"]
)
def test_a_label_may_be_any_text_of_any_writing(pond: httpx.Client, label: str) -> None:
    labels = {"labels": [{"item": "a", "label": label}]}
    assert pond.post(f"{PATH}/labels", json=labels).json()["data"][0]["label"] == label


def test_a_label_speaks_of_what_is_in_the_recording(pond: httpx.Client) -> None:
    def label(start_s: float, end_s: float) -> httpx.Response:
        said = {"item": "a", "label": "x", "start_s": start_s, "end_s": end_s}
        return pond.post(f"{PATH}/labels", json={"labels": [said]})

    assert label(0.5, 9.0).status_code == 201
    document = refused(label(1.0, 2.0), "not-in-recording")
    assert (document["limit"], document["observed"]) == (1.0, 1.0)


def test_labels_have_a_bound(pond: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    n = len(pond.get(f"{PATH}/labels", params={"limit": 1000}).json()["data"])
    monkeypatch.setattr("service.collections.labels.MAX_LABELS", n + 1)
    two = {"labels": [{"item": "a", "label": "x"}, {"item": "a", "label": "y"}]}
    refused(pond.post(f"{PATH}/labels", json=two), "collection-full")


@pytest.mark.parametrize(
    ("metadata", "is_kept"),
    [
        ('{"a": 9007199254740992}', True),
        ('{"a": 9007199254740993}', False),
        ('{"a": -9007199254740993}', False),
        ('{"a": "\\u0000"}', False),
        ('{"a\\u0000": 1}', False),
        ('{"a": "two\\nlines"}', True),
    ],
)
def test_metadata_is_kept_as_it_is_or_refused(
    pond: httpx.Client, metadata: str, is_kept: bool
) -> None:
    answer = pond.post(f"{PATH}/items", content=WAV, params={"metadata": metadata})
    if is_kept:
        assert answer.status_code == 200
    else:
        refused(answer, "invalid-parameter")


def test_what_is_asked_of_a_search_by_a_file_may_stand_in_the_query(pond: httpx.Client) -> None:
    path = f"{PATH}/search"
    found = pond.post(path, content=WAV, params={"top_k": 1, "filter": '{"ids": ["a"]}'})
    assert [hit["id"] for hit in found.json()["data"]] == ["a"]
    refused(pond.post(path, content=WAV, params={"top_n": 1}), "invalid-parameter")
    files = {"file": ("a.wav", WAV)}
    none = pond.post(path, files=files, params={"top_k": 5}, data={"filter": '{"ids": []}'})
    assert none.json()["data"] == []
    positive = {"positive": [{"vector": np.ones(4).tolist()}]}
    refused(pond.post(path, json=positive, params={"top_k": 1}), "invalid-parameter")


def test_a_file_without_a_name_is_told_what_it_lacks(client: httpx.Client) -> None:
    long = b"x" * 10_000
    for name, slug in (("file", "missing-file"), ("other", "bad-request")):
        answer = client.post("/v1/audio/embeddings", files={name: (None, long)})
        assert "file name" in refused(answer, slug)["detail"]


@pytest.mark.parametrize("value", [1e38, 1e-38, 1.0])
def test_a_vector_is_a_direction_whatever_its_length(pond: httpx.Client, value: float) -> None:
    found = pond.post(f"{PATH}/search", json={"positive": [{"vector": [value] * 4}]})
    expected = pond.post(f"{PATH}/search", json={"positive": [{"vector": [1.0] * 4}]})
    assert found.json()["data"] == expected.json()["data"] != []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/audio/embeddings?window_s=1&window_s=2",
        "/v1/audio/classifications?top_k=1&top%5Fk=1",
        "/v1/collections/pond/search?top_k=1&top_k=5",
        "/v1/embeddings?x&x",
    ],
)
def test_of_a_parameter_that_is_given_twice_none_is_dropped_in_silence(
    pond: httpx.Client, path: str
) -> None:
    answer = pond.post(path, content=encoded(tone()))
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-parameter")
    assert "is given twice; send it once" in answer.json()["detail"]
    assert pond.get("/v1/collections/pond/labels?item=a&item=b").status_code == 400
    assert pond.get("/v1/models?x&x").status_code == 200  # which has no parameters


def test_a_field_of_a_form_that_is_given_twice_is_not_dropped_in_silence(
    pond: httpx.Client,
) -> None:
    form = [("file", ("a.wav", encoded(tone()))), ("top_k", (None, "1")), ("top_k", (None, "2"))]
    answer = pond.post("/v1/audio/classifications", files=form)
    assert (answer.status_code, answer.json()["param"]) == (400, "top_k")


def test_what_may_come_several_times_is_what_the_document_says(pond: httpx.Client) -> None:
    document = pond.get("/openapi.json").json()
    lists = {
        parameter["name"]
        for path in document["paths"].values()
        for operation in path.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query" and '"type": "array"' in json.dumps(parameter["schema"])
    }
    assert lists == set(LISTS)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/collections/pond", {"": None}),
        ("/v1/collections/pond/search", {"ids": ["a"], "top": None}),
        ("/v1/audio/classifications", {"space_id": "x", "embedding": [0.5], "topk": None}),
        ("/v1/classifiers", {"collection": "pond", "nam": None}),
    ],
)
def test_a_member_that_means_nothing_is_refused_though_it_is_null(
    pond: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    method = "PUT" if path.endswith("/pond") else "POST"
    answer = pond.request(method, path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["type"] == "/problems/invalid-parameter"


@pytest.mark.parametrize(
    ("method", "path", "asked", "meant"),
    [
        ("POST", "/v1/audio/embeddings?windows_s=1", None, "window_s"),
        ("PUT", "/v1/collections/other", {"keep_audio": True}, "keeps_audio"),
        ("POST", "/v1/jobs", {"embed": {"dimension": 8}}, "dimensions"),
        ("GET", "/v1/collections/pond/map?cluster=3", None, "clusters"),
    ],
)
def test_a_parameter_that_there_is_not_is_told_with_the_one_that_it_resembles(
    pond: httpx.Client, method: str, path: str, asked: Any, meant: str
) -> None:
    answer = pond.request(method, path, json=asked)
    document = refused(answer, "invalid-parameter")
    assert document["detail"].endswith(f"; did you mean {meant}?")


def test_a_filter_that_is_null_is_none(pond: httpx.Client) -> None:
    assert pond.get(f"{PATH}/items", params={"filter": "null"}).json()["data"] != []
