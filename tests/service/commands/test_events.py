import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from typer.testing import CliRunner, Result

import viola
from models.classifier import Classifier, ClassifierCard
from service.commands.events import Event, Merging, writing
from service.commands.labels import Labelled
from service.commands.tables import TableError
from tests.heads import write_head
from tests.service.commands.test_labels import cosine


@pytest.fixture
def card(tmp_path: Path) -> ClassifierCard:
    return Classifier.open(write_head(tmp_path / "pitch.onnx")).card


def merged(windows: list[Labelled], least_score: float = 0.5) -> list[Event]:
    events: list[Event] = []
    merging = Merging(events.append, least_score)
    for window in windows:
        merging.take(window)
    merging.finish()
    return events


def window(
    card: ClassifierCard, index: int, scores: list[float], *, file: str = "a.wav", far: bool = False
) -> Labelled:
    novelty = 2 * card.novelty.threshold if far else 0.0
    probabilities = np.array(scores, np.float32)
    return Labelled(file, index / 2, index / 2 + 1, card, probabilities, novelty)


def test_windows_of_one_label_in_a_row_are_one_event(card: ClassifierCard) -> None:
    first, second = [0.75, 0.25, 0.0], [0.125, 0.875, 0.0]
    events = merged([window(card, i, s) for i, s in enumerate([first, first, second, first])])
    assert [(e.label, e.start_s, e.end_s, e.windows) for e in events] == [
        (card.labels[0], 0.0, 1.5, 2),
        (card.labels[1], 1.0, 2.0, 1),
        (card.labels[0], 1.5, 2.5, 1),
    ]
    assert events[1].score == 0.875


def test_what_is_novel_or_unsure_or_another_recording_ends_an_event(card: ClassifierCard) -> None:
    sure = [1.0, 0.0, 0.0]
    for between in (window(card, 1, sure, far=True), window(card, 1, [0.4, 0.3, 0.3])):
        assert len(merged([window(card, 0, sure), between, window(card, 2, sure)])) == 2
    for file in ("b.wav", "a.wav"):  # two members of a tar, say, may share their name
        other = replace(window(card, 1, sure, file=file), number=1)
        assert [e.file for e in merged([window(card, 0, sure), other])] == ["a.wav", file]


def test_labels_that_hold_together_have_events_of_their_own(tmp_path: Path) -> None:
    head = write_head(tmp_path / "several.onnx", multi_label=True)
    card = Classifier.open(head).card
    both, one = [0.9, 0.9, 0.0], [0.0, 0.9, 0.0]
    events = merged([window(card, 0, both), window(card, 1, one)])
    assert [(e.label, e.end_s) for e in events] == [(card.labels[0], 1.0), (card.labels[1], 1.5)]


def classify(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), ["classify", *map(str, arguments)])


@pytest.fixture
def asked(model_file: Path, tmp_path: Path) -> list[object]:
    """A second of high, then a second of low, and what labels them."""
    sf.write(tmp_path / "mixed.wav", np.concatenate([cosine(400), cosine(100)]), 16_000)
    head = write_head(tmp_path / "pitch.onnx")
    return [tmp_path / "mixed.wav", "--head", head, "--model", model_file, "--events"]


def test_events_are_written_for_tables_and_editors_of_sound(
    asked: list[object], tmp_path: Path
) -> None:
    for name in ("e.csv", "e.txt", "e.selections.txt"):
        result = classify(*asked, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
    with (tmp_path / "e.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [(r["start_s"], r["end_s"], r["label"], r["windows"]) for r in rows] == [
        ("0.0", "1.0", "high", "2"),
        ("1.0", "2.0", "low", "2"),
    ]
    assert (tmp_path / "e.txt").read_text() == (
        "0.000000\t1.000000\thigh\n1.000000\t2.000000\tlow\n"
    )
    with (tmp_path / "e.selections.txt").open() as table:
        raven = list(csv.DictReader(table, delimiter="\t"))
    assert [(r["Selection"], r["Begin Time (s)"], r["Label"]) for r in raven] == [
        ("1", "0.000000", "high"),
        ("2", "1.000000", "low"),
    ]
    assert raven[0]["Begin File"] == "mixed.wav"


def test_events_on_the_screen_have_a_line_each(asked: list[object]) -> None:
    lines = classify(*asked).stdout.splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["0.00", "1.00", "high"],
        ["1.00", "2.00", "low"],
    ]


def test_how_many_events_there_were_is_said_and_what_could_not_count(
    asked: list[object], tmp_path: Path
) -> None:
    said = classify(*asked, "--least-score", "1", "-o", tmp_path / "none.csv").stderr
    assert "0 events in 4 windows; " in said
    assert "from a score of 1" in said
    assert "2 events in " in classify(*asked).stderr


def test_formats_without_a_files_name_take_one_recording(
    asked: list[object], tmp_path: Path
) -> None:
    result = classify(tmp_path / "mixed.wav", *asked, "-o", tmp_path / "e.txt")
    assert result.exit_code == 2
    assert "of one recording" in " ".join(result.output.split())
    with pytest.raises(TableError, match="NAME.selections.txt"), writing(Path("e.xml"), 0.5, 1):
        pass


def test_the_events_before_a_damage_are_kept(asked: list[object], tmp_path: Path) -> None:
    """As `viola embed` keeps the vectors; all had been lost where no other file was given."""
    damaged, out = tmp_path / "damaged.flac", tmp_path / "e.csv"
    sf.write(damaged, np.tile(np.concatenate([cosine(400), cosine(100)]), 10), 16_000)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size * 3 // 4])
    result = classify(damaged, *asked[1:], "-o", out)
    assert (result.exit_code, "0 files labelled, 1 failed" in result.stderr) == (1, True)
    with out.open() as table:
        assert len(list(csv.DictReader(table))) == 10
