"""Teaching over HTTP: from labels to a classifier that answers, its versions, whose it is."""

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

import viola
from models.classifier import Classifier
from service.app import create_app
from service.collections.records import NewItem, NewLabel, Quota, Terms
from service.collections.store import Store, open_store
from service.exceptions import ServiceError
from service.formats.teaching_answers import ClassifierList, NextList, TaughtAnswer, TaughtEntry
from service.inference.catalogue import Catalogue
from service.settings import Settings
from service.teaching import Teaching
from service.traffic.auth import digest_of
from service.traffic.quotas import Caller
from tests.heads import write_head
from tests.service.collections.lessons import PER, windows
from tests.service.conftest import encoded, serving, tone, until

URL = "/v1/classifiers"
LABEL = "/v1/audio/classifications"
PATIENT = {"fit_timeout_s": 300.0}  # of a machine with much else to do
WHOLE = windows()
Serving = Callable[..., AbstractContextManager[httpx.Client]]


def fill(store: Store, owner: str = "", name: str = "pond", labelled: int = 9) -> None:
    """A collection of 12 recordings that sound like their number modulo 3; some say so."""
    terms = Terms("tiny", "space-of-tiny", 4, 1.0, 1.0)
    collection, _ = store.collections.put(owner, name, terms, Quota())
    items = []
    for item in range(12):
        rows = WHOLE.where(WHOLE.items == item)
        digest = f"{item:064x}"
        items.append(
            NewItem(digest, rows.start_s, rows.end_s, rows.vectors, float(PER), f"rec{item}")
        )
    store.items.add(collection, items, Quota())
    new = [NewLabel(f"rec{item}", "abc"[item % 3]) for item in range(labelled)]
    store.labels.add(collection, new, owner)


@pytest.fixture(scope="module")
def models(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(model_file, folder / "tiny.onnx")
    write_head(folder / "pitch.onnx")
    return folder


@pytest.fixture
def start(models: Path, tmp_path: Path) -> Serving:
    """Starts the service on a folder that holds the collection."""
    store = open_store(tmp_path / "data")
    fill(store)
    store.close()

    def serve(make_app: Callable[[Settings], FastAPI] = create_app, **settings: Any) -> Any:
        given = {"models": models, "threads": 1, "data": tmp_path / "data"} | PATIENT | settings
        return serving(Settings(**given), make_app)

    return serve


@dataclass
class School:
    """A service where `frogs` has been taught once, and what it answered."""

    client: httpx.Client
    answer: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def school(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    folder = tmp_path_factory.mktemp("data")
    store = open_store(folder)
    fill(store)
    store.close()
    settings = Settings(models=models, threads=1, data=folder, **PATIENT)  # type: ignore[arg-type]
    with serving(settings) as client:
        client.timeout = httpx.Timeout(300)
        answer = teach(client)
        assert answer.status_code == 201, answer.text
        yield School(client, answer.json(), folder)


def teach(client: httpx.Client, name: str = "frogs", **asked: Any) -> httpx.Response:
    return client.post(URL, json={"name": name, "collection": "pond"} | asked, timeout=300)


def best(client: httpx.Client, vectors: np.ndarray, name: str = "frogs") -> list[str]:
    """What a classifier says of vectors."""
    body = {"space_id": "space-of-tiny", "embeddings": vectors.tolist(), "classifier": name}
    answer = client.post(LABEL, json=body)
    assert answer.status_code == 200, answer.text
    return [item["predictions"][0]["label"] for item in answer.json()["data"]]


def test_what_is_taught_says_what_it_is_worth(school: School) -> None:
    answer = TaughtAnswer.model_validate(school.answer)
    assert (answer.id, answer.version, answer.active) == ("frogs", 1, True)
    assert (answer.labels, answer.windows, answer.collection) == (["a", "b", "c"], 36, "pond")
    assert answer.mean > 0.9
    assert answer.total_s > answer.seconds > 0
    assert answer.verdict[0].startswith("It is right about")
    assert any("Few windows of few recordings" in warning for warning in answer.warnings)
    assert "no recording being learnt from and tested on" in answer.card["scores"]["protocol"]


def test_it_answers_at_once_wherever_classifiers_answer(school: School) -> None:
    client = school.client
    expected = ["abc"[item % 3] for item in WHOLE.items]
    assert best(client, WHOLE.vectors) == expected
    wav, headers = encoded(tone()), {"Content-Type": "audio/wav"}
    for url, asked in (
        (LABEL, {"head": "frogs"}),
        (LABEL, {"classifier": "frogs", "stream": "true"}),
        ("/v1/audio/analyze", {"classifier": "pitch,frogs"}),
    ):
        answer = client.post(url, content=wav, headers=headers, params=asked)
        assert answer.status_code == 200, answer.text
        assert '"label":"a"' in answer.text
    several = client.post(LABEL, content=wav, headers=headers, params={"classifier": "frogs,pitch"})
    assert several.json()["heads"] == ["frogs", "pitch"]


def test_nobody_gets_it_unasked(school: School) -> None:
    wav, headers = encoded(tone()), {"Content-Type": "audio/wav"}
    assert school.client.post(LABEL, content=wav, headers=headers).json()["head"] == "pitch"
    (item,) = school.client.post("/v1/audio/analyze", content=wav, headers=headers).json()["data"]
    assert [one["head"] for one in item["classifications"]] == ["pitch"]


def test_it_is_listed_beside_those_that_are_served(school: School) -> None:
    listed = school.client.get(URL).json()
    ClassifierList.model_validate(listed)
    assert [entry["id"] for entry in listed["data"]] == ["pitch", "frogs"]
    entry = TaughtEntry.model_validate(school.client.get(f"{URL}/frogs").json())
    assert (entry.models, entry.version, entry.taught) == (["tiny"], 1, True)
    assert "logits" not in entry.card["golden"]
    shown = school.client.get(f"{URL}/frogs/versions/1").json()
    assert shown["card"] == entry.card


def test_its_file_works_elsewhere(school: School, models: Path, tmp_path: Path) -> None:
    answer = school.client.get(f"{URL}/frogs/file")
    assert answer.headers["content-disposition"] == 'attachment; filename="frogs.onnx"'
    assert answer.headers["viola-version"] == "1"
    file = tmp_path / "frogs.onnx"
    file.write_bytes(answer.content)
    assert Classifier.open(file).self_test() < 1e-4
    (tmp_path / "a.wav").write_bytes(encoded(tone()))
    arguments = ["classify", tmp_path / "a.wav", "--head", file, "--model", models / "tiny.onnx"]
    result = CliRunner().invoke(viola.build(), [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_it_is_there_after_a_restart_and_on_another_replica(school: School, models: Path) -> None:
    settings = Settings(models=models, threads=1, data=school.folder)
    with serving(settings) as other:
        assert best(other, WHOLE.vectors[:PER]) == ["a"] * PER
        assert other.get(f"{URL}/frogs").json()["version"] == 1


def test_one_whose_model_is_gone_says_how_it_answers_again(school: School) -> None:
    with closing(open_store(school.folder)) as store:
        answers = Teaching.of(store, Settings()).beside(Catalogue(), Caller(), ["frogs"])
        with pytest.raises(ServiceError, match=r"of the model tiny, .* Serve the file of that"):
            asyncio.run(answers)


def test_what_to_label_next_is_never_labelled_and_never_comes_twice(school: School) -> None:
    client, seen = school.client, set()
    for strategy in ("mixed", "margin", "diverse"):
        asked = {"collection": "pond", "n": 2, "strategy": strategy}
        answer = client.get(f"{URL}/frogs/next", params=asked)
        assert answer.status_code == 200, answer.text
        found = NextList.model_validate(answer.json())
        assert len(found.data) == 2
        for window in found.data:
            assert window.item in ("rec9", "rec10", "rec11")
            assert (window.item, window.start_s) not in seen
            assert 0 <= window.margin <= 1
            assert window.predictions
            seen.add((window.item, window.start_s))
            label = {
                "item": window.item,
                "label": "a",
                "verdict": "unsure",
                "start_s": window.start_s,
                "end_s": window.end_s,
            }
            made = client.post("/v1/collections/pond/labels", json={"labels": [label]})
            assert made.status_code == 201, made.text
    rest = client.get(f"{URL}/pitch/next", params={"collection": "pond", "n": 100}).json()
    assert rest["considered"] == len(rest["data"]) == 12 - len(seen)


def test_what_to_label_first_is_proposed_where_nothing_is_labelled(start: Serving) -> None:
    with start() as client:
        listed = client.get("/v1/collections/pond/labels?limit=1000").json()["data"]
        for label in listed:
            assert client.delete(f"/v1/collections/pond/labels/{label['id']}").status_code == 204
        for strategy in ("mixed", "margin", "diverse"):
            asked = {"collection": "pond", "n": 3, "strategy": strategy}
            answer = client.get(f"{URL}/pitch/next", params=asked)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["data"]) == 3


def test_a_new_version_answers_and_the_old_one_again(start: Serving) -> None:
    with start() as client:
        assert teach(client).json()["version"] == 1
        two = teach(client, labels=["a", "b"], description="two").json()
        assert (two["version"], two["card"]["description"]) == (2, "two")
        c = WHOLE.vectors[WHOLE.items == 2]
        assert "c" not in best(client, c)
        entry = client.post(f"{URL}/frogs/versions/1/activate").json()
        assert (entry["version"], [v["active"] for v in entry["versions"]]) == (1, [False, True])
        assert best(client, c) == ["c"] * PER
        assert client.delete(f"{URL}/frogs/versions/1").json()["type"] == "/problems/version-in-use"
        assert client.delete(f"{URL}/frogs/versions/2").status_code == 204
        assert client.get(f"{URL}/frogs/file", params={"version": 2}).status_code == 404
        assert client.delete(f"{URL}/frogs").status_code == 204
        gone = client.post(LABEL, content=encoded(tone()), params={"head": "frogs"})
        assert gone.json()["type"] == "/problems/classifier-not-found"
        assert client.delete(f"{URL}/frogs").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "slug", "words"),
    [
        ({"name": "pitch"}, 409, "classifier-taken", "comes with"),
        ({"collection": "lake"}, 404, "collection-not-found", "'lake'"),
        ({"labels": ["a"]}, 422, "nothing-to-learn", "only the label 'a'"),
        ({"labels": ["x"]}, 422, "nothing-to-learn", "has no label 'x'; it has a, b, c"),
        ({"labels": ["a"], "task": "multi-label"}, 422, "nothing-to-learn", "Of 0 windows"),
        ({"name": "a/b"}, 400, "invalid-parameter", "name"),
        ({"task": "regression"}, 400, "invalid-parameter", "task"),
        ({"epochs": 3}, 400, "invalid-parameter", "epochs"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_anything_is_learnt(
    school: School, asked: dict[str, Any], status: int, slug: str, words: str
) -> None:
    answer = school.client.post(URL, json={"name": "toads", "collection": "pond"} | asked)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert words in answer.text
    assert [entry["id"] for entry in school.client.get(URL).json()["data"]] == ["pitch", "frogs"]


def test_what_the_operator_serves_is_never_touched(school: School) -> None:
    for method, path in (
        ("POST", f"{URL}/pitch/versions/1/activate"),
        ("DELETE", f"{URL}/pitch/versions/1"),
        ("DELETE", f"{URL}/pitch"),
    ):
        answer = school.client.request(method, path)
        assert answer.json()["type"] == "/problems/classifier-taken", answer.text
    assert school.client.get(f"{URL}/pitch/file").status_code == 404


@contextmanager
def watched(start: Serving, **settings: Any) -> Iterator[tuple[httpx.Client, FastAPI]]:
    """The service, and the application inside it."""
    apps: list[FastAPI] = []

    def make(given: Settings) -> FastAPI:
        apps.append(create_app(given))
        return apps[0]

    with start(make, **settings) as client:
        yield client, apps[0]


def pids(app: FastAPI) -> list[int]:
    found: list[int] = app.state.context.teaching.fits.pids
    return found


class Asking(threading.Thread):
    """A request that is being answered."""

    def __init__(self, client: httpx.Client) -> None:
        super().__init__()
        self.client, self.answer = client, None
        self.start()

    def run(self) -> None:
        with suppress(httpx.HTTPError):
            self.answer = teach(self.client)


def test_a_fit_that_is_killed_changes_nothing_and_the_next_one_works(start: Serving) -> None:
    with watched(start) as (client, app):
        asking = Asking(client)
        until(lambda: bool(pids(app)), 60)
        (pid,) = pids(app)
        busy = client.post(URL, json={"name": "toads", "collection": "pond"})
        assert (busy.status_code, busy.json()["type"]) == (503, "/problems/overloaded")
        os.kill(pid, signal.SIGKILL)
        asking.join(60)
        assert asking.answer is not None
        assert asking.answer.json()["type"] == "/problems/fit-failed"
        assert [entry["id"] for entry in client.get(URL).json()["data"]] == ["pitch"]
        assert teach(client).json()["version"] == 1


def test_a_fit_ends_when_its_client_gives_up(start: Serving) -> None:
    with watched(start) as (client, app):
        with pytest.raises(httpx.ReadTimeout):
            client.post(URL, json={"name": "frogs", "collection": "pond"}, timeout=0.5)
        until(lambda: not pids(app), 60)
        assert [entry["id"] for entry in client.get(URL).json()["data"]] == ["pitch"]


def test_a_fit_that_takes_too_long_is_told_of(start: Serving) -> None:
    with start(fit_timeout_s=0.05) as client:
        answer = teach(client)
        assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline")
        assert "longer than 0.05 s" in answer.json()["detail"]


def test_without_collections_it_is_said_how_to_have_them(models: Path) -> None:
    with serving(Settings(models=models, threads=1)) as client:
        answer = teach(client)
        assert answer.json()["type"] == "/problems/collections-off"
        assert [entry["id"] for entry in client.get(URL).json()["data"]] == ["pitch"]


SECRETS = {name: f"viola_{name}" for name in ("ann", "bob", "eve")}
SCOPES = {"ann": "embed,classify,search,teach", "bob": "classify,teach", "eve": "classify"}


def test_a_classifier_is_the_keys_that_made_it(models: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "data")
    fill(store, "ann")
    store.close()
    lines = [f"{name}:{digest_of(key)}:{SCOPES[name]}" for name, key in SECRETS.items()]
    settings = Settings(
        models=models,
        threads=1,
        data=tmp_path / "data",
        api_keys=" ".join(lines),  # type: ignore[arg-type]
        **PATIENT,  # type: ignore[arg-type]
    )
    with serving(settings) as client:

        def ask(name: str, method: str, path: str, **given: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {SECRETS[name]}"}
            return client.request(method, path, headers=headers, timeout=300, **given)

        asked = {"name": "frogs", "collection": "pond"}
        for name, status in (("eve", 403), ("bob", 404), ("ann", 201)):
            assert ask(name, "POST", URL, json=asked).status_code == status
        body = {"space_id": "space-of-tiny", "embedding": [1, 0, 0, 0], "head": "frogs"}
        assert ask("ann", "POST", LABEL, json=body).status_code == 200
        walk = [
            ("GET", f"{URL}/frogs"),
            ("GET", f"{URL}/frogs/file"),
            ("GET", f"{URL}/frogs/versions/1"),
            ("GET", f"{URL}/frogs/next?collection=pond"),
            ("POST", f"{URL}/frogs/versions/1/activate"),
            ("DELETE", f"{URL}/frogs/versions/1"),
            ("DELETE", f"{URL}/frogs"),
        ]
        for method, path in walk:
            assert ask("bob", method, path).status_code == 404, path
            allowed = 404 if path == f"{URL}/frogs" and method == "GET" else 403
            assert ask("eve", method, path).status_code == allowed, path
            assert client.request(method, path).status_code == 401, path
        for name in ("bob", "eve"):
            assert ask(name, "POST", LABEL, json=body).status_code == 404
            assert [entry["id"] for entry in ask(name, "GET", URL).json()["data"]] == ["pitch"]
        statuses = [ask("ann", *step).status_code for step in walk]
        assert statuses == [200, 200, 200, 200, 200, 409, 204]
