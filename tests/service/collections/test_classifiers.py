"""Taught classifiers in both stores: versions, rollback, whose they are; and how they answer."""

import threading
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from models.classifier import Classifier
from service.collecting import Collecting
from service.collections import classifiers as module
from service.collections import schema
from service.collections.classifiers import (
    ClassifierNotFound,
    NewVersion,
    VersionDamaged,
    VersionInUse,
)
from service.collections.fitting import Fit
from service.collections.records import QuotaExceeded
from service.collections.search import Searcher
from service.collections.store import Store
from service.collections.teaching import Lesson, table_of
from service.exceptions import ServiceError
from service.formats.teaching_requests import TeachRequest
from service.learning import keep
from service.teaching import TaughtClassifiers
from service.traffic.quotas import Caller
from tests.heads import write_head
from tests.service.collections.conftest import QUOTA, Reopen
from tests.service.collections.lessons import all_labelled, windows


def new(content: bytes = b"file", **about: object) -> NewVersion:
    return NewVersion("pond", {"warnings": [], **about}, content)


def test_each_file_is_the_next_version_and_answers(store: Store) -> None:
    assert store.classifiers.add("ann", "frogs", new(b"one", clips=1), "ann") == 1
    assert store.classifiers.add("ann", "frogs", new(b"two", clips=2), "ann") == 2
    kept = store.classifiers.get("ann", "frogs")
    assert (kept.active, [version.number for version in kept.versions]) == (2, [2, 1])
    assert kept.version().about["clips"] == 2
    assert (kept.version(1).collection, kept.version(1).by, kept.version(1).n_bytes) == (
        "pond",
        "ann",
        3,
    )
    assert store.classifiers.download("ann", "frogs", None) == (2, b"two")
    assert store.classifiers.download("ann", "frogs", 1) == (1, b"one")


def test_an_earlier_version_answers_again_and_the_next_number_is_new(store: Store) -> None:
    for content in (b"one", b"two"):
        store.classifiers.add("ann", "frogs", new(content), "ann")
    assert store.classifiers.activate("ann", "frogs", 1).active == 1
    assert store.classifiers.download("ann", "frogs", None) == (1, b"one")
    store.classifiers.delete_version("ann", "frogs", 2)
    assert store.classifiers.add("ann", "frogs", new(b"three"), "ann") == 3
    assert [v.number for v in store.classifiers.get("ann", "frogs").versions] == [3, 1]
    with pytest.raises(VersionInUse, match="Version 3 of 'frogs' answers"):
        store.classifiers.delete_version("ann", "frogs", 3)


def test_what_is_not_there_is_said(store: Store) -> None:
    store.classifiers.add("ann", "frogs", new(), "ann")
    for call in (
        lambda: store.classifiers.activate("ann", "frogs", 7),
        lambda: store.classifiers.download("ann", "frogs", 7),
        lambda: store.classifiers.delete_version("ann", "frogs", 7),
    ):
        with pytest.raises(ClassifierNotFound, match="has no version 7"):
            call()
    with pytest.raises(ClassifierNotFound, match="no taught classifier 'toads'"):
        store.classifiers.get("ann", "toads")


def test_a_classifier_is_its_owners(store: Store) -> None:
    store.classifiers.add("ann", "frogs", new(b"hers"), "ann")
    store.classifiers.add("bob", "frogs", new(b"his"), "bob")
    assert store.classifiers.download("ann", "frogs", None) == (1, b"hers")
    assert [kept.name for kept in store.classifiers.all("eve")] == []
    assert store.classifiers.active("eve", ["frogs"]) == {}
    for call in (
        lambda: store.classifiers.get("eve", "frogs"),
        lambda: store.classifiers.activate("eve", "frogs", 1),
        lambda: store.classifiers.delete("eve", "frogs"),
        lambda: store.classifiers.delete_version("eve", "frogs", 1),
        lambda: store.classifiers.download("eve", "frogs", 1),
    ):
        with pytest.raises(ClassifierNotFound):
            call()
    store.classifiers.delete("ann", "frogs")
    assert store.classifiers.all("ann") == []
    assert store.classifiers.download("bob", "frogs", None) == (1, b"his")


def test_what_is_kept_is_there_after_a_restart_and_for_others(reopen: Reopen) -> None:
    first = reopen()
    first.classifiers.add("ann", "frogs", new(b"one"), "ann")
    other = reopen()
    assert other.classifiers.download("ann", "frogs", None) == (1, b"one")
    other.classifiers.add("ann", "frogs", new(b"two"), "ann")
    assert first.classifiers.download("ann", "frogs", None) == (2, b"two")


def test_there_are_only_so_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLASSIFIERS", 1)
    monkeypatch.setattr(module, "MAX_VERSIONS", 2)
    for _ in range(2):
        store.classifiers.add("ann", "frogs", new(), "ann")
    with pytest.raises(QuotaExceeded, match="has 2 versions"):
        store.classifiers.add("ann", "frogs", new(), "ann")
    with pytest.raises(QuotaExceeded, match="There are 1 taught classifiers"):
        store.classifiers.add("ann", "toads", new(), "ann")
    assert [kept.name for kept in store.classifiers.all("ann")] == ["frogs"]


def test_those_who_teach_at_once_each_get_a_version(store: Store) -> None:
    numbers: list[int] = []

    def add() -> None:
        numbers.append(store.classifiers.add("ann", "frogs", new(), "ann"))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4]


def test_a_job_that_is_begun_again_tells_its_own_version(store: Store, tmp_path: Path) -> None:
    collected = Collecting(store, Searcher(store), QUOTA)
    file = write_head(tmp_path / "frogs.onnx")
    fit = Fit(file.read_bytes(), Classifier.open(file).card, (), 1.0)
    taught = table_of(windows(), all_labelled(), Lesson(), "pond")
    asked = TeachRequest(name="frogs", collection="pond")

    def told(job: str | None) -> int:
        return keep(collected, Caller("ann"), asked, taught, fit, job)[1].number

    assert [told("one"), told("two"), told("one"), told(None)] == [1, 2, 1, 3]


def test_the_version_that_answers_is_opened_once_and_changes_at_once(
    store: Store, tmp_path: Path
) -> None:
    taught = TaughtClassifiers(store.classifiers)
    files = [write_head(tmp_path / f"{i}.onnx", licence=f"licence {i}") for i in range(2)]
    store.classifiers.add("ann", "frogs", new(files[0].read_bytes()), "ann")
    (head,) = taught.named("ann", ["frogs", "unknown"]).values()
    assert (head.name, head.network.card.licence) == ("frogs", "licence 0")
    assert taught.named("ann", ["frogs"])["frogs"] is head
    store.classifiers.add("ann", "frogs", new(files[1].read_bytes()), "ann")
    assert taught.named("ann", ["frogs"])["frogs"].network.card.licence == "licence 1"
    store.classifiers.activate("ann", "frogs", 1)
    assert taught.named("ann", ["frogs"])["frogs"] is head
    assert taught.named("bob", ["frogs"]) == {}
    store.classifiers.delete("ann", "frogs")
    assert taught.named("ann", ["frogs"]) == {}
    probabilities = head.network.predict(np.zeros((1, 4), np.float32)).probabilities
    assert probabilities.shape == (1, 3)  # whoever has it goes on


def test_a_file_that_lies_is_not_served(store: Store, tmp_path: Path) -> None:
    wrong = write_head(tmp_path / "wrong.onnx", golden_scale=2.0).read_bytes()
    store.classifiers.add("ann", "wrong", new(wrong), "ann")
    store.classifiers.add("ann", "broken", new(b"no model"), "ann")
    for name in ("wrong", "broken"):
        with pytest.raises(ServiceError, match="teach it again"):
            TaughtClassifiers(store.classifiers).named("ann", [name])


def test_a_file_that_was_changed_is_found_and_the_others_answer(
    store: Store, tmp_path: Path
) -> None:
    file = write_head(tmp_path / "frogs.onnx").read_bytes()
    for name in ("frogs", "toads"):
        store.classifiers.add("ann", name, new(file), "ann")
    store.classifiers.add("ann", "frogs", new(file), "ann")
    at = file.index(b"licence")  # of the card: it computes the same
    changed = file[:at] + b"L" + file[at + 1 :]
    versions = schema.classifier_versions
    with store.database.write() as connection:
        newest = versions.c.version == 2
        connection.execute(update(versions).where(newest).values(file=changed))
    taught = TaughtClassifiers(store.classifiers)
    said = "Version 2 of the taught classifier 'frogs' was damaged.*activate another version"
    with pytest.raises(VersionDamaged, match=said):
        taught.named("ann", ["frogs"])
    with pytest.raises(VersionDamaged, match=said):
        store.classifiers.download("ann", "frogs", None)
    assert list(taught.named("ann", ["toads"])) == ["toads"]
    store.classifiers.activate("ann", "frogs", 1)
    assert list(taught.named("ann", ["frogs"])) == ["frogs"]
