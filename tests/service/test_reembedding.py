"""Collections that move to another model, over HTTP and by the command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile as sf
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

import viola
from service.collections.items import Items
from service.collections.records import Collection, Item
from service.collections.store import open_store
from tests.service.collections.conftest import QUOTA, new_item
from tests.service.conftest import NEGATIVE, Serve, encoded, tone, write_model
from tests.service.test_collections import TONES, add, search
from tests.service.traffic.test_refusals import refused

URL = "/v1/collections/tones"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models whose vectors differ."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "tiny.onnx")
    write_model(folder / "other.onnx", "other", graph=NEGATIVE)
    return folder


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def made(client: httpx.Client, **terms: Any) -> None:
    asked = {"model": "tiny", "window_s": 1.0, "keeps_audio": True} | terms
    assert client.put(URL, json=asked).status_code == 201


def reembed(client: httpx.Client, model: str = "other") -> httpx.Response:
    return client.post(f"{URL}/reembed", json={"model": model})


def test_a_collection_moves_with_all_that_was_said_of_it(
    serve: Serve, models: Path, tmp_path: Path
) -> None:
    with serve(models=models, data=tmp_path) as client:
        made(client)
        add(client, "tones", TONES)
        long = {"content": encoded(tone(12.3, hz=300)), "params": {"id": "long", "stream": "true"}}
        assert client.post(f"{URL}/items", **long).status_code == 200
        said = [{"item": "long", "label": "hum", "start_s": 2.0, "end_s": 3.5}]
        client.post(f"{URL}/labels", json={"labels": said})
        labels = client.get(f"{URL}/labels").json()
        items = client.get(f"{URL}/items").json()["data"]
        answer = lines(reembed(client))
        assert (answer[0]["object"], answer[0]["left"]) == ("reembedding", 7)
        assert [line["item"] for line in answer[1:-1]] == [item["id"] for item in items]
        assert answer[-1]["is_complete"]
        assert answer[-1]["usage"]["audio_seconds"] == pytest.approx(24.3, abs=0.01)
        shown = client.get(URL).json()
        assert shown == answer[-1]["collection"]
        assert (shown["model"], shown["space_id"]) == ("other", "space-of-other")
        assert (shown["items"], shown["windows"]) == (7, 6 * 2 + 13)
        assert client.get(f"{URL}/items").json()["data"] == items
        assert client.get(f"{URL}/labels").json() == labels
        sound = encoded(tone(1.0, hz=430))
        vector = client.post("/v1/audio/embeddings?model=other", content=sound).json()
        vector = vector["data"][0]["embedding"]
        assert search(client, "tones", positive=[{"vector": vector}])[0]["id"] == "tone-430"
        hits = client.post(f"{URL}/search", content=sound).json()["data"]
        assert (hits[0]["id"], hits[0]["score"]) == ("tone-430", pytest.approx(1.0, abs=1e-3))
        again = lines(reembed(client))
        assert [line["object"] for line in again] == ["reembedding", "done"]
        assert (again[0]["left"], again[1]["is_complete"]) == (0, True)
        assert add(client, "tones", {"new-1": encoded(tone(1.0, hz=77))}).status_code == 201
        back = client.post(f"{URL}/reembed", json={"model": "tiny"}, headers={"Accept": EVENTS})
        assert back.text.startswith("event: reembedding\n")
        assert client.get(URL).json()["space_id"] == "space-of-tiny"


@pytest.mark.parametrize("kept", [True, False])
def test_a_model_that_is_gone_is_named_with_what_can_be_done(
    serve: Serve, models: Path, tmp_path: Path, kept: bool
) -> None:
    with serve(models=models / "tiny.onnx", data=tmp_path) as client:
        made(client, keeps_audio=kept)
        add(client, "tones", TONES)
    way = "reembed computes" if kept else "add its recordings to a new collection"
    sound = TONES["tone-110"]
    with capture_logs() as logs, serve(models=models / "other.onnx", data=tmp_path) as client:
        told = [line for line in logs if line["event"].startswith("collections of a model that")]
        assert [(line["model"], line["space_id"], line["collections"]) for line in told] == [
            ("tiny", "space-of-tiny", 1)
        ]
        for answer, slug in (
            (client.post(f"{URL}/search", content=sound), "collection-space"),
            (client.post(f"{URL}/items", content=sound), "collection-space"),
            (client.put(URL, json={"window_s": 1.0}), "collection-differs"),
        ):
            detail = refused(answer, slug)["detail"]
            assert "'tones' is of the model tiny, space space-of-tiny" in detail
            assert way in detail
        assert client.get(f"{URL}/items").status_code == 200
        if kept:
            assert lines(reembed(client))[-1]["is_complete"]
            assert client.post(f"{URL}/search", content=sound).status_code == 200


EVENTS = "text/event-stream"


def test_what_cannot_be_read_keeps_the_old_one_and_the_rest_is_not_done_again(
    serve: Serve, models: Path, tmp_path: Path
) -> None:
    with serve(models=models, data=tmp_path) as client:
        made(client, window_s=5.0)
        add(client, "tones", {"a-1": TONES["tone-110"], "b-2": TONES["tone-820"]})
        before = client.get(URL).json()
        store = open_store(tmp_path)
        collection = store.collections.get("", "tones")
        broken = new_item(1, 1, audio=b"no audio")
        broken = type(broken)(**{**vars(broken), "vectors": broken.vectors[:, :4]})
        store.items.add(collection, [broken], QUOTA)
        store.close()
        before = client.get(URL).json()
        answer = lines(reembed(client))
        assert [line["object"] for line in answer[1:]] == [
            "progress",
            "progress",
            "failure",
            "done",
        ]
        assert (answer[3]["item"], answer[3]["error"]["type"]) == (
            "item-1",
            "/problems/unsupported-format",
        )
        assert (answer[-1]["is_complete"], answer[-1]["failed"]) == (False, 1)
        assert client.get(URL).json() == before == answer[-1]["collection"]
        assert search(client, "tones", positive=[{"id": "a-1"}])
        refused(client.post(f"{URL}/reembed", json={"model": "none"}), "model-not-found")
        client.delete(f"{URL}/items/item-1")
        answer = lines(reembed(client))
        assert (answer[0]["left"], answer[-1]["is_complete"]) == (0, True)
        assert answer[-1]["usage"]["audio_seconds"] == 0
        assert client.get(URL).json()["space_id"] == "space-of-other"


def test_a_recording_that_is_deleted_on_the_way_is_no_failure(
    serve: Serve, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn comes after its page was read, and before its audio is."""
    reading = Items.audio

    def read(self: Items, collection: Collection, item: Item) -> Iterator[bytes]:
        if item.id == "a-1":
            self.delete(collection, "b-2")
            self.delete(collection, "a-1")
        yield from reading(self, collection, item)

    monkeypatch.setattr(Items, "audio", read)
    with serve(models=models, data=tmp_path) as client:
        made(client)
        names = {"a-1": "tone-110", "b-2": "tone-820", "c-3": "tone-430"}
        add(client, "tones", {id: TONES[name] for id, name in names.items()})
        answer = lines(reembed(client))
        assert [line.get("item") for line in answer[1:]] == ["c-3", None]
        assert (answer[-1]["is_complete"], answer[-1]["failed"]) == (True, 0)
        assert answer[-1]["collection"]["items"] == 1


def test_a_recording_that_is_deleted_on_the_way_is_no_failure_of_the_command(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Items.audio

    def read(self: Items, collection: Collection, item: Item) -> Iterator[bytes]:
        if item.file == str(tmp_path / "a.wav"):
            self.delete(collection, item.id)
        yield from reading(self, collection, item)

    monkeypatch.setattr(Items, "audio", read)
    for name, hz in (("a.wav", 200), ("b.wav", 300)):
        sf.write(tmp_path / name, tone(1.5, hz=hz), 16_000)
    data = ("--data", tmp_path / "data", "--threads", 1)
    indexed = run("index", tmp_path, "--keep-audio", *data, "--model", models / "tiny.onnx")
    assert indexed.exit_code == 0, indexed.output
    done = run("reembed", *data, "--model", models / "other.onnx")
    assert done.exit_code == 0, done.output
    assert "1 recording, 1 window; 1 embedded now, 0 failed" in done.output


def test_a_move_of_a_collection_that_is_deleted_says_so(
    serve: Serve, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Items.audio
    with serve(models=models, data=tmp_path) as client:
        made(client)
        add(client, "tones", {"a-1": TONES["tone-110"], "b-2": TONES["tone-820"]})

        def read(self: Items, collection: Collection, item: Item) -> Iterator[bytes]:
            client.delete(URL)
            yield from reading(self, collection, item)

        monkeypatch.setattr(Items, "audio", read)
        last = lines(reembed(client))[-1]
        assert (last["object"], last["error"]["type"]) == (
            "error",
            "/problems/collection-not-found",
        )


def test_recordings_without_audio_are_refused_by_name(
    serve: Serve, models: Path, tmp_path: Path
) -> None:
    with serve(models=models, data=tmp_path) as client:
        made(client, keeps_audio=False)
        add(client, "tones", TONES)
        document = refused(reembed(client), "audio-not-kept")
        assert all(name in document["detail"] for name in TONES)
        assert document["observed"] == 6
        refused(client.delete(f"{URL}/reembed"), "collection-not-found")
        refused(client.post("/v1/collections/none/reembed"), "collection-not-found")
        refused(client.post(f"{URL}/reembed", json={"models": "x"}), "invalid-parameter")


def test_a_move_can_be_given_up(serve: Serve, models: Path, tmp_path: Path) -> None:
    with serve(models=models, data=tmp_path) as client:
        made(client)
        add(client, "tones", {"a-1": TONES["tone-110"]})
        store = open_store(tmp_path)
        collection = store.collections.get("", "tones")
        terms = type(collection.terms)(**{**vars(collection.terms), "space_id": "third"})
        store.reembedding.begin(collection, terms, QUOTA)
        store.close()
        refused(reembed(client), "collection-differs")
        assert client.delete(f"{URL}/reembed").status_code == 204
        assert lines(reembed(client))[-1]["is_complete"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), list(map(str, arguments)), env={"COLUMNS": "200"})


def test_the_command_does_the_same(models: Path, tmp_path: Path) -> None:
    data, sound, long = tmp_path / "data", tmp_path / "a.wav", tmp_path / "b.flac"
    sf.write(sound, tone(1.5), 16_000)
    sf.write(long, tone(13.0), 16_000)
    old = ("--model", models / "tiny.onnx", "--threads", 1)
    new = ("--model", models / "other.onnx", "--threads", 1)
    indexed = ("index", sound, long, "--data", data, "--window-s", 1, *old)
    assert run(*indexed, "--keep-audio").exit_code == 0
    for command in (("search", sound, "--data", data), indexed[:5]):
        refusal = run(*command, *new)
        assert refusal.exit_code == 2
        assert "'sounds' is of the model tiny, space space-of-tiny" in refusal.output
        assert "reembed computes its vectors anew" in refusal.output
    done = run("reembed", "--data", data, *new)
    assert done.exit_code == 0, done.output
    assert "sounds is of other, 2 recordings, 15 windows; 2 embedded now, 0 failed" in done.output
    assert "0 embedded now" in run("reembed", "--data", data, *new).output
    assert "a.wav" in run("search", sound, "--data", data, *new).output
    store = open_store(data)
    collection = store.collections.get("", "sounds")
    assert collection.terms.space_id == "space-of-other"
    (item, _) = store.items.page(collection)
    assert b"".join(store.items.audio(collection, item)) == sound.read_bytes()
    store.close()
    without = run("index", sound, "--data", data, "--collection", "bare", *old)
    assert without.exit_code == 0
    refusal = run("reembed", "--data", data, "--collection", "bare", *new)
    assert refusal.exit_code == 2
    assert "was not kept" in refusal.output
    assert run("reembed", "--data", data, "--give-up", *new).exit_code == 2
