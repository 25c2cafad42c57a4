import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner, Result

import viola
from models.classifier import Classifier
from models.runtime import Encoder
from service.commands.bulk import Failure
from service.commands.labels import Labelled, label_files
from tests.heads import LABELS, write_head

SAMPLES = Path(__file__).parents[3] / "samples"


def cosine(hz: float, level: float = 0.05, seconds: float = 1.0) -> np.ndarray:
    """What one of the tiny encoder's filters answers to, (S,)."""
    return level * np.cos(2 * np.pi * hz * np.arange(round(seconds * 16_000)) / 16_000)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Low, broken, high then low, and a loud one that is novel."""
    paths = [tmp_path / f"{name}.wav" for name in ("low", "broken", "mixed", "loud")]
    sf.write(paths[0], cosine(100), 16_000)
    paths[1].write_bytes(b"RIFF")
    sf.write(paths[2], np.concatenate([cosine(400), cosine(100)]), 16_000)
    sf.write(paths[3], cosine(100, level=0.9), 16_000)
    return paths


@pytest.fixture
def head(tmp_path: Path) -> Path:
    return write_head(tmp_path / "pitch.onnx")


def classify(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), ["classify", *map(str, arguments)])


def test_every_file_gets_its_labels_or_its_failure_in_order(
    encoder: Encoder, head: Path, files: list[Path]
) -> None:
    classifier = Classifier.open(head)
    results = list(label_files(encoder, classifier, files))
    assert [type(result) for result in results] == [Labelled, Failure, Labelled, Labelled]
    for result in results:
        if isinstance(result, Labelled):
            found = classifier.predict(encoder.embed(Path(result.file))[None])
            np.testing.assert_allclose(result.probabilities, found.probabilities[0], atol=1e-5)
            assert result.is_novel == (Path(result.file).stem == "loud")


def test_the_table_on_the_screen_names_labels_novelty_and_failures(
    model_file: Path, head: Path, files: list[Path]
) -> None:
    result = classify(*files, "--head", head, "--model", model_file)
    assert result.exit_code == 1
    rows = {Path(line.split()[0]).stem: line for line in result.stdout.splitlines()[1:]}
    assert set(rows) == {"low", "mixed", "loud"}
    assert rows["low"].split()[1] == "low"
    assert {name for name, row in rows.items() if row.rstrip().endswith("novel")} == {"loud"}
    assert f"failed: {files[1]}: " in result.stderr
    assert result.stderr.splitlines()[-1] == "3 files labelled, 1 failed"


def test_without_a_failure_the_exit_code_is_0(
    model_file: Path, head: Path, files: list[Path]
) -> None:
    assert classify(files[0], "--head", head, "--model", model_file).exit_code == 0


def test_without_a_name_the_usual_classifier_tells_the_kind_of_sound() -> None:
    result = classify(SAMPLES / "speech.opus")
    assert result.stdout.splitlines()[1].split()[1] == "speech"
    assert Classifier.open().card == Classifier.open("sound-kinds").card


def test_a_timeline_has_a_row_a_window_as_long_as_the_training_clips(
    model_file: Path, head: Path, files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "labels.csv"
    asked = (files[2], "--head", head, "--model", model_file, "--timeline", "--top-k", 1)
    assert classify(*asked, "-o", out).exit_code == 0
    with out.open() as table:
        rows = list(csv.DictReader(table))
    assert [(row["start_s"], row["end_s"]) for row in rows] == [
        (f"{i / 2}", f"{i / 2 + 0.5}") for i in range(4)
    ]
    assert [row["label"] for row in rows] == ["high", "high", "low", "low"]
    shown = classify(*asked, "--window-s", 1)
    assert [line.split()[1] for line in shown.stdout.splitlines()[1:]] == ["0.00-1.00", "1.00-2.00"]


@pytest.mark.parametrize("multi_label", [False, True])
def test_csv_and_json_lines_hold_the_same(
    model_file: Path, files: list[Path], tmp_path: Path, multi_label: bool
) -> None:
    head = write_head(tmp_path / "pitch.onnx", multi_label=multi_label)
    tables = [tmp_path / "labels.csv", tmp_path / "labels.jsonl"]
    for table in tables:
        result = classify(*files, "--head", head, "--model", model_file, "-o", table)
        assert result.exit_code == 1
        assert f"{table}: 3 files labelled, 1 failed" in result.stderr.replace("\n", "")
    with tables[0].open() as table:
        rows = list(csv.DictReader(table))
    lines = [json.loads(line) for line in tables[1].read_text().splitlines()]
    assert [Path(line["file"]).stem for line in lines] == ["low", "mixed", "loud"]
    for line in lines:
        mine = [row for row in rows if row["file"] == line["file"]]
        assert [int(row["rank"]) for row in mine] == [1, 2, 3]
        assert {p["label"] for p in line["predictions"]} == set(LABELS)
        assert line["space_id"] == "space-of-tiny"
        for row, prediction in zip(mine, line["predictions"], strict=True):
            assert row["label"] == prediction["label"]
            assert float(row["score"]) == prediction["score"]
            assert bool(int(row["is_novel"])) == line["novelty"]["is_novel"]
            assert ("is_present" in prediction) == multi_label
            if multi_label:
                assert bool(int(row["is_present"])) == prediction["is_present"]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "labels.txt"), "expected one of .csv, .jsonl"),
        (("-o", "gone/labels.csv"), "does not exist"),
        (("--window-s", "1"), "need --timeline"),
        (("--timeline", "--window-s", "1", "--hop-s", "2"), "expected 0 < hop_s <= window_s"),
        (("--head", "gone.onnx"), "no model file at gone.onnx"),
        (("--model", "pitch.onnx"), "kind classifier; expected kind encoder"),
        (("--head", "apart.onnx"), "space elsewhere; tiny computes space space-of-tiny"),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_use(
    model_file: Path,
    head: Path,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_head(tmp_path / "apart.onnx", space_id="elsewhere")
    result = classify(files[0], "--head", head, "--model", model_file, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.glob("labels*"))


def test_a_name_that_could_be_markup_is_printed_as_it_is(
    model_file: Path, head: Path, tmp_path: Path
) -> None:
    path = tmp_path / "[red]x.wav"
    sf.write(path, cosine(100), 16_000)
    result = classify(path, "--head", head, "--model", model_file)
    assert "[red]x.wav" in result.stdout
