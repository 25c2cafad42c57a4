"""Collections over HTTP, with a real store in a folder."""

import csv
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import structlog

from service.settings import SettingsError
from service.traffic.auth import digest_of, new_key
from tests.service.conftest import EMBED_DIM, Serve, encoded, tone
from tests.service.traffic.test_refusals import refused

TONES = {f"tone-{hz}": encoded(tone(2.0, hz=hz)) for hz in (110, 140, 390, 430, 820, 230)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def keeping(serve: Serve, folder: Path) -> Iterator[httpx.Client]:
    """A service that keeps collections."""
    with serve(data=folder) as client:
        yield client


def add(client: httpx.Client, path: str, files: dict[str, bytes], **fields: Any) -> httpx.Response:
    parts = [("file", (f"{name}.wav", content)) for name, content in files.items()]
    about = [{"id": name, "metadata": {"hz": int(name.split("-")[1])}} for name in files]
    data = {"items": json.dumps(about)} | fields
    return client.post(f"/v1/collections/{path}/items", files=parts, data=data)


@pytest.fixture(scope="module")
def tones(keeping: httpx.Client) -> str:
    """The name of a collection of tones."""
    made = keeping.put("/v1/collections/tones", json={"granularity": "clip"})
    assert made.status_code == 201
    assert add(keeping, "tones", TONES).status_code == 201
    return "tones"


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("PUT", "/v1/collections/asked", {}),
        ("POST", "/v1/collections/tones/deletions", {"filter": {"ids": ["tone-1"]}}),
        ("POST", "/v1/collections/tones/labels", {"labels": []}),
        ("POST", "/v1/collections/tones/reembed", {}),
        ("POST", "/v1/collections/tones/search", {"positive": [{"id": "tone-1"}]}),
        ("POST", "/v1/classifiers", {"name": "asked", "collection": "tones"}),
        ("POST", "/v1/jobs", {"map": {"collection": "tones"}}),
    ],
)
def test_what_is_said_in_json_is_not_said_in_the_query(
    keeping: httpx.Client, tones: str, method: str, path: str, document: dict[str, Any]
) -> None:
    answer = keeping.request(method, path, json=document, params={"keeps_audio": "true"})
    refused(answer, "invalid-parameter")
    assert answer.json()["param"] == "keeps_audio"
    refused(keeping.get("/v1/collections/asked"), "collection-not-found")
    form = {"files": {"file": ("a.wav", b"")}, "data": {"embed": "{}"}}
    refused(keeping.post("/v1/jobs", params={"webhook": "x"}, **form), "invalid-parameter")


def test_a_collection_says_what_it_is_of(keeping: httpx.Client) -> None:
    made = keeping.put("/v1/collections/first", json={"window_s": 1.0, "hop_s": 0.5})
    again = keeping.put("/v1/collections/first", json={"window_s": 1.0, "hop_s": 0.5})
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json() == keeping.get("/v1/collections/first").json()
    shown = made.json()
    del shown["created_at"]
    assert shown == {
        "object": "collection",
        "name": "first",
        "model": "tiny",
        "space_id": "space-of-tiny",
        "dimensions": EMBED_DIM,
        "granularity": "window",
        "window_s": 1.0,
        "hop_s": 0.5,
        "keeps_audio": False,
        "items": 0,
        "windows": 0,
        "bytes": 0,
    }
    refused(keeping.put("/v1/collections/first", json={"window_s": 2.0}), "collection-differs")
    assert "first" in [c["name"] for c in keeping.get("/v1/collections").json()["data"]]
    assert keeping.delete("/v1/collections/first").status_code == 204
    refused(keeping.get("/v1/collections/first"), "collection-not-found")
    refused(keeping.delete("/v1/collections/first"), "collection-not-found")


@pytest.mark.parametrize("length", [None, "0"])
@pytest.mark.parametrize("kind", [None, "application/json"])
def test_a_collection_needs_no_body(
    keeping: httpx.Client, length: str | None, kind: str | None
) -> None:
    request = keeping.build_request("PUT", "/v1/collections/plain")
    del request.headers["content-length"]  # curl sends none without a body
    given = {"content-length": length, "content-type": kind}
    request.headers.update({name: value for name, value in given.items() if value is not None})
    made = keeping.send(request).json()
    assert (made["window_s"], made["hop_s"], made["granularity"]) == (5.0, 5.0, "window")


@pytest.mark.parametrize(
    ("name", "body", "slug"),
    [
        ("a%20b", {}, "invalid-parameter"),
        ("a" * 65, {}, "invalid-parameter"),
        ("x", {"model": "none"}, "model-not-found"),
        ("x", {"window_s": 0}, "invalid-parameter"),
        ("x", {"window_s": 1.0, "hop_s": 2.0}, "invalid-parameter"),
        ("x", {"granularity": "clip", "hop_s": 2.0}, "invalid-parameter"),
        ("x", {"window": 1.0}, "invalid-parameter"),
        ("x", {"keeps_audio": "yes"}, "invalid-parameter"),
        ("x", [], "bad-request"),
    ],
)
def test_terms_that_make_no_sense_are_refused(
    keeping: httpx.Client, name: str, body: Any, slug: str
) -> None:
    refused(keeping.put(f"/v1/collections/{name}", json=body), slug)


def test_added_files_are_items_with_windows(keeping: httpx.Client) -> None:
    keeping.put("/v1/collections/windows", json={"window_s": 1.0})
    files = {
        "long-1": encoded(tone(3.5)),
        "short-2": encoded(tone(0.4)),
        "rest-3": encoded(tone(2.1)),
    }
    answer = add(keeping, "windows", files)
    assert answer.status_code == 201
    document = answer.json()
    assert (document["collection"], document["space_id"]) == ("windows", "space-of-tiny")
    items = [entry["item"] for entry in document["data"]]
    assert [entry["is_new"] for entry in document["data"]] == [True] * 3
    assert [item["id"] for item in items] == list(files)
    assert [item["windows"] for item in items] == [4, 1, 2]  # a tenth of a second is no window
    assert items[0]["sha256"] == sha256(files["long-1"]).hexdigest()
    assert (items[0]["metadata"], items[0]["file"]) == ({"hz": 1}, "long-1.wav")
    assert document["usage"]["audio_seconds"] == pytest.approx(6.0, abs=0.01)
    assert keeping.get("/v1/collections/windows/items/long-1").json() == items[0]
    assert keeping.get("/v1/collections/windows").json()["windows"] == 7
    stretch = {"positive": [{"id": "long-1", "start_s": 1.2, "end_s": 1.4}], "group": "window"}
    found = search(keeping, "windows", include_examples=True, top_k=2, **stretch)
    assert found[0]["score"] > 0.999


def test_metadata_are_told_as_they_were_given(keeping: httpx.Client) -> None:
    keeping.put("/v1/collections/given")
    path, content = "/v1/collections/given/items", encoded(tone(1.0, hz=123))
    written = '{"n":1,"x":1.0,"wet":true,"most":9007199254740992,"o\u0308":"1"}'
    added = keeping.post(path, content=content, params={"id": "a", "metadata": written})
    exported = keeping.get("/v1/collections/given/vectors", params={"output": "csv"})
    (row,) = csv.DictReader(exported.text.splitlines())
    listed = keeping.get(path)
    found = keeping.post("/v1/collections/given/search", content=content)
    for answer in (added, listed, keeping.get(f"{path}/a"), found):
        assert written in answer.text
    assert row["metadata"].replace(" ", "") == written


def test_the_same_content_is_added_once(keeping: httpx.Client) -> None:
    keeping.put("/v1/collections/once")
    path, content = "/v1/collections/once/items", encoded(tone(1.0, hz=222))
    first = keeping.post(path, content=content, params={"id": "a", "metadata": '{"x": 1}'})
    again = keeping.post(path, content=content)
    same = keeping.post(path, content=content, params={"id": "a"})
    assert (first.status_code, again.status_code, same.status_code) == (201, 200, 200)
    (entry,) = again.json()["data"]
    assert entry["is_new"] is False
    assert entry["item"] == first.json()["data"][0]["item"]
    assert again.json()["usage"] == {"audio_seconds": 0.0, "windows": 0}
    other_id = keeping.post(path, content=content, params={"id": "b"})
    assert "as the item 'a'" in refused(other_id, "item-conflict")["detail"]
    taken = keeping.post(path, content=encoded(tone(1.0, hz=333)), params={"id": "a"})
    assert "with other content" in refused(taken, "item-conflict")["detail"]
    assert keeping.get("/v1/collections/once").json()["items"] == 1


def test_a_broken_file_among_good_ones_is_told_in_its_place(keeping: httpx.Client) -> None:
    keeping.put("/v1/collections/broken")
    answer = add(
        keeping, "broken", {"a-1": TONES["tone-110"], "b-2": b"no audio", "c-3": b"nor this"}
    )
    assert answer.status_code == 201
    entries = answer.json()["data"]
    assert [entry.get("error", {}).get("type") for entry in entries] == [
        None,
        "/problems/unsupported-format",
        "/problems/unsupported-format",
    ]
    refused(add(keeping, "broken", {"b-2": b"no audio"}), "unsupported-format")
    assert keeping.get("/v1/collections/broken").json()["items"] == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"items": "[]"}, "items"),
        ({"items": "[{}, {}]"}, "items"),
        ({"items": "["}, "items"),
        ({"items": '[{"id": "a/b"}]'}, "items[0].id"),
        ({"items": '[{"name": "a"}]'}, "items[0].name"),
        ({"items": '[{"metadata": {"a": [1]}}]'}, None),
        ({"metadata": "3"}, "metadata"),
        ({"id": ""}, None),
        ({"id": "x", "items": "[{}]"}, "id"),
        ({"ids": "x"}, "ids"),
    ],
)
def test_what_is_said_of_files_has_to_make_sense(
    keeping: httpx.Client, tones: str, fields: dict[str, str], param: str | None
) -> None:
    answer = keeping.post(
        f"/v1/collections/{tones}/items", files={"file": TONES["tone-110"]}, params=fields
    )
    document = refused(answer, "invalid-parameter")
    assert param in (None, document["invalid_params"][0]["name"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"metadata": '{"n": 9007199254740993}'},
            "metadata.n = 9007199254740993 is not accepted: "
            "whole numbers are kept up to 9007199254740992: send it as a text",
        ),
        ({"metadata": '{"n": 18446744073709551616}'}, "numbers are kept below 9223372036854775808"),
        ({"metadata": '{"n": [1]}'}, "expected a text, a number, true or false"),
        ({"metadata": '{"n": {"m": 1}}'}, "expected a text, a number, true or false"),
        ({"metadata": '{"n": null}'}, "what is not known is left out"),
        ({"metadata": json.dumps({"n": "x" * 513})}, "String should have at most 512 characters"),
        ({"metadata": '{"n": "a\\u0000b"}'}, "a text holds no NUL"),
        ({"metadata": '{"\u00fc": 1, "u\u0308": 2}'}, "is there twice, in two Unicode forms"),
        ({"metadata": json.dumps({"\u0958" * 40: 1})}, "a name has 80 letters"),
        (
            {
                "metadata": json.dumps({f"a{n}": n for n in range(20)}),
                "items": json.dumps([{"metadata": {f"b{n}": n for n in range(20)}}]),
            },
            "at most 32 items",
        ),
        (
            {"metadata": '{"\u00fc": 1}', "items": '[{"metadata": {"u\u0308": 1}}]'},
            "is there twice",
        ),
    ],
)
def test_metadata_that_would_not_come_back_is_refused_with_what_to_do(
    keeping: httpx.Client, tones: str, fields: dict[str, str], says: str
) -> None:
    path = f"/v1/collections/{tones}/items"
    files = {"file": TONES["tone-110"]}
    document = refused(keeping.post(path, files=files, data=fields), "invalid-parameter")
    assert says in document["detail"]


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"n": [1, [2]]}, "metadata.n[1] = [2] is not accepted: expected a text, a number"),
        ({"n": []}, "metadata.n = [] is not accepted: List should have at least 1 item"),
        ({"n": {"above": 1}}, "no parameter 'metadata.n.above'; there are gt, gte, lt, lte."),
        ({"n": {"gte": 1, "lt": "b"}}, "give numbers alone, or texts alone"),
        ({"n": {"gte": 2**53 + 1}}, "metadata.n.gte = 9007199254740993 is not accepted: whole"),
        ({"n": None}, "metadata.n = None is not accepted: expected a text, a number"),
        ({"n": "x" * 513}, "String should have at most 512 characters"),
        ({"n": [1, "a\0b"]}, "is not accepted: a text holds no NUL"),
        ({"n": {"gte": "x" * 513}}, "String should have at most 512 characters"),
    ],
)
def test_a_filter_that_cannot_hold_says_what_it_should_be(
    keeping: httpx.Client, tones: str, metadata: dict[str, Any], says: str
) -> None:
    wanted = {"filter": json.dumps({"metadata": metadata})}
    answer = keeping.get(f"/v1/collections/{tones}/items", params=wanted)
    assert says in refused(answer, "invalid-parameter")["detail"]


def search(client: httpx.Client, name: str, **asked: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/v1/collections/{name}/search", json=asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_a_file_finds_what_sounds_like_it(keeping: httpx.Client, tones: str) -> None:
    answer = keeping.post(
        f"/v1/collections/{tones}/search",
        files={"file": encoded(tone(1.0, hz=430))},
        data={"top_k": "2"},
    )
    document = answer.json()
    assert (document["exact"], document["space_id"]) == (True, "space-of-tiny")
    assert [hit["id"] for hit in document["data"]] == ["tone-430", "tone-390"]
    best = document["data"][0]
    assert best["score"] > 0.99
    assert 80 < best["percentile"] <= 100
    assert (best["start_s"], best["end_s"], best["metadata"]) == (0.0, 2.0, {"hz": 430})
    raw = keeping.post(f"/v1/collections/{tones}/search", content=encoded(tone(1.0, hz=430)))
    assert raw.json()["data"][:2] == document["data"]


def test_an_item_finds_others_like_it(keeping: httpx.Client, tones: str) -> None:
    found = search(keeping, tones, positive=[{"id": "tone-390"}], top_k=3)
    assert found[0]["id"] == "tone-430"
    assert "tone-390" not in [hit["id"] for hit in found]
    with_itself = search(keeping, tones, positive=[{"id": "tone-390"}], include_examples=True)
    assert with_itself[0]["id"] == "tone-390"
    assert len(with_itself) == len(TONES)


def test_what_is_unlike_a_negative_example_comes_first(keeping: httpx.Client, tones: str) -> None:
    both = [{"id": "tone-110"}, {"id": "tone-820"}]
    near = search(keeping, tones, positive=both)
    away = search(
        keeping, tones, positive=both, negative=[{"id": "tone-140"}], include_examples=True
    )
    order = [hit["id"] for hit in away]
    assert order.index("tone-820") < order.index("tone-110")
    assert {hit["id"] for hit in near} == set(TONES) - {"tone-110", "tone-820"}
    answer = keeping.post(
        f"/v1/collections/{tones}/search",
        files=[("file", ("a.wav", encoded(tone(1.0, hz=hz)))) for hz in (110, 820, 140)],
        data={"negative_files": "[2]"},
    )
    order = [hit["id"] for hit in answer.json()["data"]]
    assert order.index("tone-820") < order.index("tone-110")


def test_a_vector_finds_what_the_file_finds(keeping: httpx.Client, tones: str) -> None:
    sound = encoded(tone(1.0, hz=430))
    embedding = keeping.post("/v1/audio/embeddings", content=sound).json()["data"][0]["embedding"]
    by_file = keeping.post(f"/v1/collections/{tones}/search", content=sound).json()["data"]
    assert search(keeping, tones, positive=[{"vector": embedding}]) == by_file


def test_filters_and_percentiles_leave_out(keeping: httpx.Client, tones: str) -> None:
    wanted = {"metadata": {"hz": {"gte": 390, "lt": 1000}}}
    found = search(keeping, tones, positive=[{"id": "tone-390"}], filter=wanted)
    assert {hit["id"] for hit in found} == {"tone-430", "tone-820"}
    everything = search(keeping, tones, positive=[{"id": "tone-390"}])
    some = search(keeping, tones, positive=[{"id": "tone-390"}], min_percentile=70)
    assert some == [hit for hit in everything if hit["percentile"] >= 70]
    assert len(some) < len(everything)


@pytest.mark.parametrize(
    ("asked", "slug"),
    [
        ({}, "invalid-parameter"),
        ({"positive": [{}]}, "invalid-parameter"),
        ({"positive": [{"id": "tone-110", "vector": [1.0]}]}, "invalid-parameter"),
        ({"positive": [{"id": "nobody"}]}, "item-not-found"),
        ({"positive": [{"id": "tone-110", "start_s": 1.0}]}, "invalid-parameter"),
        ({"positive": [{"id": "tone-110", "start_s": 2.0, "end_s": 1.0}]}, "invalid-parameter"),
        ({"positive": [{"id": "tone-110", "start_s": 7.0, "end_s": 8.0}]}, "bad-example"),
        ({"positive": [{"vector": [1.0] * 3}]}, "invalid-parameter"),
        ({"positive": [{"vector": [0.0] * 4}]}, "invalid-parameter"),
        ({"positive": [{"vector": [1e300] * 4}]}, "invalid-parameter"),
        ({"positive": [{"vector": [1.0] * 4}, {"vector": [-1.0] * 4}]}, "bad-example"),
        ({"positive": [{"id": "tone-110"}], "top_k": 0}, "invalid-parameter"),
        ({"positive": [{"id": "tone-110"}], "top_k": "5"}, "invalid-parameter"),
        (
            {"positive": [{"id": "tone-110"}], "filter": {"metadata": {"a": {}}}},
            "invalid-parameter",
        ),
        ({"positive": [{"id": "tone-110"}], "negative_files": [0]}, "invalid-parameter"),
        ({"positive": [{"id": "tone-110"}], "filters": {}}, "invalid-parameter"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    keeping: httpx.Client, tones: str, asked: dict[str, Any], slug: str
) -> None:
    refused(keeping.post(f"/v1/collections/{tones}/search", json=asked), slug)


def test_items_are_listed_page_by_page_and_deleted(keeping: httpx.Client) -> None:
    keeping.put("/v1/collections/pages")
    add(keeping, "pages", TONES)
    path = "/v1/collections/pages/items"
    first = keeping.get(path, params={"limit": 4}).json()
    rest = keeping.get(path, params={"limit": 4, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["data"] + rest["data"]] == list(TONES)
    assert "next_cursor" not in rest
    low = {"metadata": {"hz": {"lt": 200}}}
    chosen = keeping.get(path, params={"filter": json.dumps(low)}).json()["data"]
    assert [item["id"] for item in chosen] == ["tone-110", "tone-140"]
    assert keeping.delete(f"{path}/tone-430").status_code == 204
    refused(keeping.delete(f"{path}/tone-430"), "item-not-found")
    deleted = keeping.post("/v1/collections/pages/deletions", json={"filter": low})
    assert deleted.json() == {"object": "deleted", "items": 2}
    nothing = keeping.post("/v1/collections/pages/deletions", json={"filter": {}})
    refused(nothing, "invalid-parameter")
    left = [item["id"] for item in keeping.get(path).json()["data"]]
    assert left == ["tone-390", "tone-820", "tone-230"]
    found = search(keeping, "pages", positive=[{"id": "tone-390"}])
    assert {hit["id"] for hit in found} == {"tone-820", "tone-230"}


def test_audio_is_kept_where_the_collection_says_so(keeping: httpx.Client, tones: str) -> None:
    keeping.put("/v1/collections/audio", json={"keeps_audio": True})
    add(keeping, "audio", {"a-1": TONES["tone-110"]})
    kept = keeping.get("/v1/collections/audio/items/a-1/audio")
    assert kept.content == TONES["tone-110"]
    assert kept.headers["Content-Type"] == "application/octet-stream"
    answer = keeping.get(f"/v1/collections/{tones}/items/tone-110/audio")
    assert "was not kept" in refused(answer, "item-not-found")["detail"]


def test_a_recording_of_any_length_is_added_in_lines(serve: Serve, tmp_path: Path) -> None:
    long = encoded(tone(40.3, hz=390))
    limits = {"max_duration_s": 10.0, "max_body_bytes": 1 << 20}
    with serve(data=tmp_path, **limits) as client:
        client.put("/v1/collections/days")
        path = "/v1/collections/days/items"
        refused(client.post(path, content=long), "body-too-large")
        about = {"id": "day", "metadata": '{"site": "pond"}'}
        files = {"file": ("day.wav", long)}
        added = client.post(path, files=files, data=about, params={"stream": "true"})
        lines = [json.loads(line) for line in added.text.splitlines()]
        assert lines[0]["object"] == "stream"
        assert {line["object"] for line in lines[1:-2]} == {"progress"}
        assert lines[-2]["item"] == client.get(f"{path}/day").json()
        assert (lines[-2]["is_new"], lines[-2]["item"]["metadata"]) == (True, {"site": "pond"})
        assert lines[-2]["item"]["windows"] == 8
        assert lines[-1]["usage"] == {"audio_seconds": 40.3, "windows": 8}
        again = client.post(path, content=long, params={"stream": "true"}).text.splitlines()
        assert json.loads(again[1])["is_new"] is False
        other = client.post(path, content=long, params={"stream": "true", "id": "b"})
        refused(other, "item-conflict")
        broken = client.post(path, content=long[:-40000], params={"stream": "true", "id": "c"})
        assert "error" in broken.text
        assert client.get("/v1/collections/days").json()["items"] == 1
        client.put("/v1/collections/clips", json={"granularity": "clip", "keeps_audio": True})
        path = "/v1/collections/clips/items"
        refused(client.post(path, content=long, params={"stream": "true"}), "body-too-large")
        short = encoded(tone(2.0, hz=390))
        client.post(path, content=short, params={"stream": "true", "id": "a"})
        assert client.get(f"{path}/a/audio").content == short
        (found,) = search(client, "clips", positive=[{"id": "a"}], include_examples=True)
        assert (found["id"], found["end_s"]) == ("a", 2.0)


def test_near_duplicates_are_listed(keeping: httpx.Client) -> None:
    rng = np.random.default_rng(0)
    noises = [0.1 * rng.standard_normal(8000) for _ in range(10)]
    sounds = [encoded(noise) for noise in [*noises, 0.5 * noises[3]]]
    keeping.put("/v1/collections/twice", json={"granularity": "clip"})
    add(keeping, "twice", {f"n-{i}": content for i, content in enumerate(sounds)})
    found = keeping.get("/v1/collections/twice/duplicates", params={"confidence": 0.95}).json()
    assert ["n-3", "n-10"] in [pair["ids"] for pair in found["data"]]
    assert found["pairs"] == len(found["data"])
    wrong = keeping.get("/v1/collections/twice/duplicates", params={"confidence": 1.5})
    refused(wrong, "invalid-parameter")


def test_a_map_gives_each_item_a_place(keeping: httpx.Client, tones: str) -> None:
    found = keeping.get(f"/v1/collections/{tones}/map", params={"clusters": 2}).json()["data"]
    assert {item["id"] for item in found} == set(TONES)
    assert all(-1 <= item["x"] <= 1 and -1 <= item["y"] <= 1 for item in found)
    assert {item["cluster"] for item in found} == {0, 1}
    again = keeping.get(f"/v1/collections/{tones}/map", params={"clusters": 2}).json()["data"]
    assert again == found
    low = keeping.get(
        f"/v1/collections/{tones}/map", params={"filter": '{"metadata": {"hz": {"lt": 200}}}'}
    )
    assert len(low.json()["data"]) == 2


def test_labels_are_added_listed_and_deleted(keeping: httpx.Client, tones: str) -> None:
    path = f"/v1/collections/{tones}/labels"
    labels = [
        {"item": "tone-110", "label": "low"},
        {"item": "tone-820", "label": "low", "verdict": "negative", "start_s": 0.5, "end_s": 1.0},
    ]
    made = keeping.post(path, json={"labels": labels})
    assert made.status_code == 201
    listed = keeping.get(path).json()["data"]
    assert listed == made.json()["data"]
    assert (listed[1]["verdict"], listed[1]["start_s"], listed[1]["by"]) == ("negative", 0.5, "")
    only = {"labels": ["low"]}
    hits = search(keeping, tones, positive=[{"id": "tone-390"}], filter=only)
    assert [hit["id"] for hit in hits] == ["tone-110"]
    assert keeping.get(path, params={"item": "tone-820"}).json()["data"] == [listed[1]]
    assert keeping.delete(f"{path}/{listed[0]['id']}").status_code == 204
    refused(keeping.delete(f"{path}/{listed[0]['id']}"), "item-not-found")
    nobody = keeping.post(path, json={"labels": [{"item": "nobody", "label": "x"}]})
    refused(nobody, "item-not-found")
    for wrong in ({"labels": []}, {"labels": [labels[0] | {"verdict": "maybe"}]}, {}):
        refused(keeping.post(path, json=wrong), "invalid-parameter")


def test_what_was_added_is_there_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path) as client:
        client.put("/v1/collections/c")
        add(client, "c", TONES)
        before = search(client, "c", positive=[{"id": "tone-390"}])
    with serve(data=tmp_path) as client:
        assert search(client, "c", positive=[{"id": "tone-390"}]) == before


def test_without_a_folder_the_routes_say_how_to_have_one(client: httpx.Client) -> None:
    asked = [
        client.get("/v1/collections"),
        client.put("/v1/collections/a"),
        client.post("/v1/collections/a/items", content=TONES["tone-110"]),
        client.post("/v1/collections/a/search", json={}),
        client.get("/v1/collections/a/labels"),
    ]
    for answer in asked:
        refused(answer, "collections-off")
    page = client.get("/problems/collections-off").json()
    assert "VIOLA_DATA" in page["remedy"]


KEYS = {name: new_key() for name in ("ann", "ben", "embedder")}


@pytest.fixture(scope="module")
def keyed(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    lines = [f"{name}:{digest_of(KEYS[name])}:search,teach:600" for name in ("ann", "ben")]
    lines.append(f"embedder:{digest_of(KEYS['embedder'])}")
    folder = tmp_path_factory.mktemp("keyed")
    limits = {"max_collections": 2, "max_collection_items": 3}
    with serve(data=folder, api_keys=" ".join(lines), **limits) as client:
        yield client


def as_(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


def test_a_collection_belongs_to_the_key_that_made_it(keyed: httpx.Client) -> None:
    path = "/v1/collections/hers"
    assert keyed.put(path, headers=as_("ann")).status_code == 201
    content = TONES["tone-110"]
    added = keyed.post(f"{path}/items", content=content, params={"id": "a"}, headers=as_("ann"))
    assert added.status_code == 201
    assert "RateLimit" in added.headers
    label = {"labels": [{"item": "a", "label": "x"}]}
    assert (
        keyed.post(f"{path}/labels", json=label, headers=as_("ann")).json()["data"][0]["by"]
        == "ann"
    )
    attempts = [
        ("GET", path, {}),
        ("DELETE", path, {}),
        ("GET", f"{path}/items", {}),
        ("GET", f"{path}/items/a", {}),
        ("GET", f"{path}/items/a/audio", {}),
        ("GET", f"{path}/items/a/samples", {}),
        ("DELETE", f"{path}/items/a", {}),
        ("POST", f"{path}/items", {"content": content}),
        ("POST", f"{path}/deletions", {"json": {"filter": {"ids": ["a"]}}}),
        ("POST", f"{path}/search", {"json": {"positive": [{"id": "a"}]}}),
        ("GET", f"{path}/duplicates", {}),
        ("GET", f"{path}/map", {}),
        ("GET", f"{path}/labels", {}),
        ("POST", f"{path}/labels", {"json": label}),
        ("DELETE", f"{path}/labels/1", {}),
    ]
    for method, where, sent in attempts:
        answer = keyed.request(method, where, headers=as_("ben"), **sent)
        refused(answer, "collection-not-found")
        refused(keyed.request(method, where, headers=as_("embedder"), **sent), "forbidden")
        refused(keyed.request(method, where, **sent), "unauthorized")
    assert keyed.get("/v1/collections", headers=as_("ben")).json()["data"] == []
    assert keyed.put(path, headers=as_("ben")).status_code == 201
    assert keyed.get(path, headers=as_("ann")).json()["items"] == 1


def test_quotas_bound_what_a_key_keeps(keyed: httpx.Client) -> None:
    headers = as_("ann")
    keyed.put("/v1/collections/hers", headers=headers)
    keyed.put("/v1/collections/second", headers=headers)
    document = refused(keyed.put("/v1/collections/third", headers=headers), "collection-full")
    assert (document["limit"], document["observed"]) == (2, 3)
    parts = [("file", ("a.wav", content)) for content in list(TONES.values())[:4]]
    answer = keyed.post("/v1/collections/second/items", files=parts, headers=headers)
    document = refused(answer, "collection-full")
    assert (document["limit"], document["observed"], document["unit"]) == (3, 4, "items")
    assert keyed.get("/v1/collections/second", headers=headers).json()["items"] == 0


def test_what_changes_a_collection_stands_in_the_log(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path) as client, structlog.testing.capture_logs() as lines:
        client.put("/v1/collections/c")
        add(client, "c", {"a-1": TONES["tone-110"]})
        client.delete("/v1/collections/c/items/a-1")
        client.delete("/v1/collections/c")
    said = [line["event"] for line in lines if line.get("collection") == "c"]
    assert said == ["collection made", "items added", "items deleted", "collection deleted"]


def test_a_folder_that_cannot_be_used_is_named(serve: Serve, tmp_path: Path) -> None:
    from service.collecting import Collecting
    from service.settings import Settings

    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="VIOLA_DATA: the folder"):
        Collecting.open(Settings(data=tmp_path / "file" / "below"))
