"""viola teach: the same without a server, on the same folder."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import viola
from models.classifier import Classifier
from service.collections.records import NewItem, NewLabel, Quota, Terms
from service.collections.store import open_store
from tests.service.test_teaching import fill


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a collection; of 12 recordings none is labelled."""
    store = open_store(tmp_path / "data")
    fill(store, labelled=0)
    store.close()
    return tmp_path / "data"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), [str(argument) for argument in arguments])


def test_labels_of_a_file_become_a_classifier_and_a_file_again(data: Path, tmp_path: Path) -> None:
    labels, out, back = tmp_path / "labels.csv", tmp_path / "frogs.onnx", tmp_path / "back.csv"
    rows = [f"rec{item}.wav,{'abc'[item % 3]}" for item in range(9)]
    labels.write_text("\n".join(["file,label", *rows, "elsewhere.wav,a"]) + "\n")
    asked = ("teach", "frogs", "--collection", "pond", "--data", data, "--timeout-s", 300)
    taught = run(*asked, "--labels", labels, "--onnx", out)
    assert taught.exit_code == 0, taught.output
    text = " ".join(taught.output.split())
    assert "9 labels added" in text
    assert "or not under this name, or not alone with it: elsewhere.wav (1); write the name" in text
    assert "Few windows of few recordings" in text
    assert "frogs, version 1, taught by 36 windows (a 12, b 12, c 12)" in text
    assert Classifier.open(out).card.labels == ["a", "b", "c"]
    assert run("teach", "--collection", "pond", "--data", data, "--export", back).exit_code == 0
    assert back.read_text().splitlines()[1].startswith("rec0,,,a,positive,viola teach,")
    for path in (labels, back):
        twice = run("teach", "--collection", "pond", "--data", data, "--labels", path).output
        assert f"{path.name}: 0 labels added, 9 there already" in " ".join(twice.split())
    store = open_store(data)
    assert store.classifiers.download("", "frogs", None) == (1, out.read_bytes())
    store.close()
    again = run(*asked, "--onnx", out)
    assert (again.exit_code, "--force" in again.output) == (2, True)


def test_labels_of_files_that_are_called_the_same_stay_apart(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "labels.csv"
    store = open_store(data)
    pond, _ = store.collections.put("", "pond", Terms("tiny", "space", 2, 1.0, 1.0), Quota())
    one = np.ones(1)
    for id in ("a", "b", "c"):
        new = NewItem(id * 64, 0 * one, one, np.ones((1, 2), np.float32), 1.0, id, "rec.wav")
        store.items.add(pond, [new], Quota())
    store.labels.add(pond, [NewLabel("a", "frog"), NewLabel("b", "owl", "negative")], "ann")
    store.close()
    asked = ("teach", "--collection", "pond", "--data", data)
    assert run(*asked, "--export", out).exit_code == 0
    out.write_text(out.read_text().replace(",ann,", ",bob,"))
    assert run(*asked, "--labels", out).exit_code == 0
    store = open_store(data)
    told = [(label.item_id, label.label, label.verdict) for label in store.labels.page(pond)]
    store.close()
    assert told == 2 * [("a", "frog", "positive"), ("b", "owl", "negative")]
    (tmp_path / "by_name.csv").write_text("file,label\nrec.wav,frog\n")
    unclear = run(*asked, "--labels", tmp_path / "by_name.csv")
    said = " ".join(unclear.output.split())
    assert (unclear.exit_code, "or several under one: rec.wav (1)" in said) == (1, True)


def test_a_file_under_another_name_and_a_label_in_another_unicode_form_are_known(
    data: Path, tmp_path: Path
) -> None:
    store = open_store(data)
    pond = store.collections.get("", "pond")
    one, digest = np.ones(1), hashlib.sha256(b"sound").hexdigest()
    new = NewItem(digest, 0 * one, one, np.ones((1, 4), np.float32), 1.0, "new", "old.wav")
    store.items.add(pond, [new], Quota())
    (tmp_path / "renamed.wav").write_bytes(b"sound")
    (tmp_path / "labels.csv").write_text("file,label\nrenamed.wav,\u00e9\n")
    asked = ("teach", "frogs", "--collection", "pond", "--data", data, "--label")
    two_letters = run(*asked, "e\u0301", "--labels", tmp_path / "labels.csv")
    assert "carry only the label" in " ".join(two_letters.output.split())
    assert [label.item_id for label in store.labels.page(pond)] == ["new"]
    store.close()
    no_text = run(*asked, "\udcff")
    assert (no_text.exit_code, "'\\udcff' is not UTF-8" in no_text.output) == (2, True)


def test_people_who_disagree_do_so_after_an_export_and_in_files_of_their_own(
    data: Path, tmp_path: Path
) -> None:
    """Else all of it were one person's, whose last word counts."""
    pond = ("--collection", "pond", "--data", data)
    rows = [f"rec{item}.wav,{'ab'[item % 2]},positive,ann" for item in range(12)]
    (tmp_path / "two.csv").write_text(
        "\n".join(["file,label,verdict,by", *rows, "rec0.wav,a,negative,Zoë", "rec1.wav,b,unsure,"])
    )
    (tmp_path / "rec2.txt").write_text("0\t4\ta\n")
    added = run("teach", *pond, "--labels", tmp_path / "two.csv")
    assert added.exit_code == 0, added.output
    assert run("teach", *pond, "--labels", tmp_path / "rec2.txt", "--by", "cat").exit_code == 0
    back = tmp_path / "back.csv"
    for export in (back, tmp_path / "again.csv"):
        assert run("teach", *pond, "--export", export).exit_code == 0
        said = [line.split(",")[:6] for line in export.read_text().splitlines()[1:]]
        assert {row[5] for row in said} == {"ann", "Zoë", "viola teach", "cat"}
        assert said[-1] == ["rec2", "0.0", "4.0", "a", "positive", "cat"]
        store = open_store(data)
        kept = store.collections.get("", "pond")
        for label in store.labels.page(kept):
            store.labels.delete(kept, label.key)
        store.close()
        assert run("teach", *pond, "--labels", back).exit_code == 0
    taught = run("teach", "frogs", *pond, "--timeout-s", 300)
    assert taught.exit_code == 0, taught.output
    assert "People disagree about 4 windows" in " ".join(taught.output.split())


def test_an_export_says_what_it_leaves_out_and_is_of_a_recording_that_is_there(
    data: Path, tmp_path: Path
) -> None:
    pond = ("teach", "--collection", "pond", "--data", data)
    labels, out = tmp_path / "labels.csv", tmp_path / "rec0.txt"
    labels.write_text("file,label,verdict\nrec0,a,positive\nrec0,b,negative\nrec0,c,unsure\n")
    assert run(*pond, "--labels", labels).exit_code == 0
    done = run(*pond, "--export", out, "--recording", "rec0")
    text = " ".join(done.output.split())
    assert "1 label written" in text
    assert "2 labels are negative or unsure and are left out" in text
    before = out.read_text()
    wrong = run(*pond, "--export", out, "--recording", "rec99", "--force")
    assert (wrong.exit_code, out.read_text()) == (1, before)
    assert "--recording 'rec99'" in " ".join(wrong.output.split())
    whole = run(*pond, "--export", tmp_path / "all.csv")
    assert "left out" not in whole.output


def test_what_a_person_can_put_right_is_one_line(data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nelsewhere.wav,a\n")
    of_nobody = tmp_path / "of_nobody.csv"
    of_nobody.write_text(f"file,label,by\nrec0.wav,a,{'x' * 65}\n")
    pond = ("frogs", "--collection", "pond", "--data", data)
    for arguments, code, words in (
        (("frogs", "--collection", "lake", "--data", data), 1, "no collection 'lake'"),
        (pond, 1, "has no labels"),
        ((*pond, "--labels", labels), 1, "none of its recordings"),
        ((*pond[1:],), 2, "NAME is missing"),
        (("frogs", "--data", tmp_path / "gone"), 2, "viola index makes it"),
        ((*pond, "--onnx", "frogs.txt"), 2, "NAME.onnx"),
        ((*pond, "--labels", labels, "--by", "x" * 65), 2, "a name of at most 64 letters"),
        ((*pond, "--labels", of_nobody), 1, "line 2: by"),
    ):
        result = run("teach", *arguments)
        assert result.exit_code == code, result.output
        assert words in " ".join(result.output.replace("│", " ").split())
