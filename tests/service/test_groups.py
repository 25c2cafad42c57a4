"""Collections and classifiers of groups of keys: who sees them, and who does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.collections.store import open_store
from service.traffic.auth import Key, digest_of, new_key
from tests.service.conftest import Serve, encoded, tone
from tests.service.test_teaching import LABEL, PATIENT, fill
from tests.service.traffic.test_refusals import refused

SECRETS = {name: new_key() for name in ("ann", "ben", "cat", "dan")}
ALL = "embed,classify,search,teach"
LINES = {
    "ann": f"{ALL}:::birds",
    "ben": f"{ALL}:::bats,birds",
    "cat": ALL,
    "dan": "search:::birds",
}
SOUND = encoded(tone(2.0, hz=390))
SHARED = "/v1/collections/birds:sounds"


@pytest.fixture(scope="module")
def client(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("data")
    store = open_store(folder)
    fill(store, "birds:", "birds:pond")
    store.close()
    lines = [f"{name}:{digest_of(SECRETS[name])}:{rest}" for name, rest in LINES.items()]
    with serve(data=folder, api_keys=" ".join(lines), **PATIENT) as client:
        yield client


def ask(client: httpx.Client, who: str, method: str, path: str, **sent: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {SECRETS[who]}"}
    return client.request(method, path, headers=headers, timeout=300, **sent)


def names(client: httpx.Client, who: str, path: str = "/v1/collections") -> list[str]:
    data = ask(client, who, "GET", path).json()["data"]
    return [entry.get("name") or entry["id"] for entry in data]


def test_a_line_names_the_groups_of_a_key() -> None:
    line = f"ann:{'0' * 64}:search:::birds,bats"
    assert Key.parse(line).groups == {"birds", "bats"}
    assert Key.parse(Key.parse(line).line()) == Key.parse(line)
    assert Key.parse(f"ann:{'0' * 64}").groups == set()
    for wrong in ("birds,", "a b", ",", "a" * 33, "ü"):
        with pytest.raises(ValueError, match="sixth field"):
            Key.parse(f"ann:{'0' * 64}:search:::{wrong}")
    with pytest.raises(ValueError, match="more than six"):
        Key.parse(f"{line}:more")


def test_members_read_and_write_by_their_scopes(client: httpx.Client) -> None:
    assert ask(client, "ann", "PUT", SHARED).status_code == 201
    assert ask(client, "ben", "PUT", SHARED).status_code == 200
    item = {"content": SOUND, "params": {"id": "a"}}
    assert ask(client, "ben", "POST", f"{SHARED}/items", **item).status_code == 201
    assert ask(client, "ann", "GET", f"{SHARED}/items/a").json()["id"] == "a"
    label = {"labels": [{"item": "a", "label": "owl"}]}
    said = ask(client, "ben", "POST", f"{SHARED}/labels", json=label).json()["data"][0]
    assert said["by"] == "ben"
    found = ask(client, "dan", "POST", f"{SHARED}/search", content=SOUND).json()
    assert (found["collection"], found["data"][0]["id"]) == ("birds:sounds", "a")
    refused(ask(client, "dan", "POST", f"{SHARED}/labels", json=label), "forbidden")
    assert "birds:sounds" in names(client, "ann")
    assert names(client, "ann") == names(client, "dan")


def test_for_others_it_is_as_if_it_were_not_there(client: httpx.Client) -> None:
    ask(client, "ann", "PUT", SHARED)
    ask(client, "ann", "POST", f"{SHARED}/items", content=SOUND, params={"id": "a"})
    walk: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "", {}),
        ("GET", "/items", {}),
        ("GET", "/items/a", {}),
        ("GET", "/items/a/audio", {}),
        ("GET", "/items/a/samples", {}),
        ("POST", "/items", {"content": SOUND}),
        ("POST", "/search", {"content": SOUND}),
        ("POST", "/deletions", {"json": {"filter": {"ids": ["a"]}}}),
        ("GET", "/duplicates", {}),
        ("GET", "/map", {}),
        ("GET", "/labels", {}),
        ("POST", "/labels", {"json": {"labels": [{"item": "a", "label": "x"}]}}),
        ("DELETE", "/labels/1", {}),
        ("DELETE", "/items/a", {}),
        ("DELETE", "", {}),
    ]
    for method, rest, sent in walk:
        for group in ("birds", "nobody"):
            answer = ask(client, "cat", method, f"/v1/collections/{group}:sounds{rest}", **sent)
            document = refused(answer, "collection-not-found")
            assert document["detail"] == f"There is no collection '{group}:sounds'."
    assert names(client, "cat") == []
    for group in ("birds", "nobody"):
        refused(ask(client, "cat", "PUT", f"/v1/collections/{group}:sounds"), "forbidden")
    assert ask(client, "ann", "GET", f"{SHARED}/items/a").status_code == 200


def test_a_key_has_its_own_beside_those_of_its_groups(client: httpx.Client) -> None:
    ask(client, "ann", "PUT", SHARED)
    assert ask(client, "ann", "PUT", "/v1/collections/sounds").status_code == 201
    refused(ask(client, "ben", "GET", "/v1/collections/sounds"), "collection-not-found")
    assert ask(client, "ben", "PUT", "/v1/collections/bats:sounds").status_code == 201
    assert names(client, "ann") == ["sounds", "birds:pond", "birds:sounds"]
    assert names(client, "ben") == ["bats:sounds", "birds:pond", "birds:sounds"]
    for path in ("sounds", "birds:sounds"):
        assert ask(client, "ann", "DELETE", f"/v1/collections/{path}").status_code == 204
    assert names(client, "ann") == ["birds:pond"]


@pytest.mark.parametrize("name", [":sounds", "birds:", "a:b:c", "a/b:c", "a" * 60 + ":abcd"])
def test_names_that_are_none_are_refused(client: httpx.Client, name: str) -> None:
    answer = ask(client, "ann", "PUT", f"/v1/collections/{name}")
    assert answer.status_code in (400, 404), answer.text


def test_a_classifier_of_a_group_answers_its_members(client: httpx.Client) -> None:
    asked = {"name": "birds:kinds", "collection": "birds:pond"}
    path = "/v1/classifiers/birds:kinds"
    refused(ask(client, "cat", "POST", "/v1/classifiers", json=asked), "forbidden")
    mine = {"name": "kinds", "collection": "birds:pond"}
    refused(ask(client, "cat", "POST", "/v1/classifiers", json=mine), "collection-not-found")
    assert ask(client, "ann", "POST", "/v1/classifiers", json=asked).status_code == 201
    body = {"space_id": "space-of-tiny", "embedding": [1, 0, 0, 0], "head": "birds:kinds"}
    assert ask(client, "ben", "POST", LABEL, json=body).status_code == 200
    refused(ask(client, "cat", "POST", LABEL, json=body), "classifier-not-found")
    assert names(client, "ben", "/v1/classifiers") == ["birds:kinds"]
    assert names(client, "cat", "/v1/classifiers") == []
    file = ask(client, "ben", "GET", f"{path}/file")
    assert file.headers["Content-Disposition"] == 'attachment; filename="kinds.onnx"'
    for method, rest in (
        ("GET", ""),
        ("GET", "/file"),
        ("GET", "/versions/1"),
        ("GET", "/next?collection=birds:pond"),
        ("POST", "/versions/1/activate"),
        ("DELETE", "/versions/1"),
        ("DELETE", ""),
    ):
        answer = ask(client, "cat", method, path + rest)
        assert answer.status_code == 404, (method, rest, answer.text)
    assert ask(client, "ben", "DELETE", path).status_code == 204
    refused(ask(client, "ann", "GET", path), "classifier-not-found")


def test_without_keys_there_are_no_groups(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path) as open_to_all:
        answer = open_to_all.put(SHARED)
        assert "no groups" in refused(answer, "forbidden")["detail"]
        refused(open_to_all.get(SHARED), "collection-not-found")
