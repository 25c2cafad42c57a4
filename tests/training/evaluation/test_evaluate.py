import json
import math
import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner, Result

import viola
from models.labelled import tasks
from models.labelled.tasks import Task, TaskError
from tests.labelled import clip, table_of_folds, write_clip, write_table
from tests.signals import noise
from training.evaluation import figures, report
from training.evaluation.embeddings import Subject
from training.evaluation.evaluate import Settings, evaluate

MEASURES = ["linear", "knn", "shots-1", "shots-5", "shots-10", "search"]


def spectrum(units: NDArray[np.float32]) -> NDArray[np.float32]:
    """Energy in 32 bands: what tones are told by."""
    power = np.abs(np.fft.rfft(units, 2048)[:, :1024]) ** 2
    return np.log(power.reshape(len(units), 32, 32).sum(2) + 1e-3).astype(np.float32)


def chance(units: NDArray[np.float32]) -> NDArray[np.float32]:
    """What has nothing to do with the label."""
    return np.random.default_rng(0).normal(size=(len(units), 16)).astype(np.float32)


SUBJECTS = [Subject("spectrum", "s", spectrum, {}), Subject("<chance>", "c", chance, {})]


def measured(task: Task, tmp_path: Path, seed: int = 42) -> list:
    console = Console(quiet=True)
    return evaluate([task], SUBJECTS, tmp_path / "cache", Settings(seed=seed), console)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("task")


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return tasks.load(table_of_folds(folder, 63), 0.2)


@pytest.fixture(scope="module")
def results(task: Task, folder: Path) -> list:
    """Of what separates the classes, and of what does not."""
    return measured(task, folder)


def several_labels(folder: Path) -> Task:
    """Clips of one tone or two, in three folds."""
    kinds = ["high", '"high,low"', "low", '"low,mid"', "mid", '"high,low,mid"']
    rows = []
    for index in range(48):
        kind = kinds[index % 6]
        parts = kind.strip('"').split(",")
        write_clip(folder / f"{index}.wav", sum(clip(p, index) for p in parts) / len(parts))
        rows.append(f"{index}.wav,{kind},{index // 6 % 3}")
    (folder / "several.csv").write_text("\n".join(["file_name,label,fold", *rows]))
    return tasks.load(folder / "several.csv", 0.2)


def test_what_separates_the_classes_wins_by_every_measure(results: list) -> None:
    good, bad = results
    assert list(good.measures) == list(bad.measures) == MEASURES
    for name in MEASURES:
        assert good.measures[name].mean > 0.8
        assert bad.measures[name].mean < 0.65
        assert good.measures[name].low <= good.measures[name].mean <= good.measures[name].high


def test_classes_confusion_and_rounds_add_up(results: list) -> None:
    found = results[1].measures["linear"]
    assert len(found.values) == 3
    counts = np.array(found.confusion)
    assert counts.sum() == 63
    assert np.trace(counts) / 63 == pytest.approx(found.mean)
    np.testing.assert_allclose(found.by_class, counts.diagonal() / 21)


def test_the_same_seed_gives_the_same_numbers(task: Task, folder: Path, results: list) -> None:
    again, other = (measured(task, folder, seed)[1].measures for seed in (42, 2))
    assert again == results[1].measures
    assert other != results[1].measures


def test_a_task_of_one_round_is_asked_with_three_seeds(tmp_path: Path) -> None:
    table_of_folds(tmp_path, 60)
    lines = (tmp_path / "tones.csv").read_text().replace("fold", "split").splitlines()
    words = {"1": "train", "2": "test", "3": "train"}
    split = [lines[0], *(f"{line[:-1]}{words[line[-1]]}" for line in lines[1:])]
    (tmp_path / "tones.csv").write_text("\n".join(split))
    found = measured(tasks.load(tmp_path / "tones.csv", 0.2), tmp_path)[0].measures
    assert len(found["linear"].values) == 3
    assert len(found["shots-5"].values) == 5


def test_several_labels_are_scored_by_map(tmp_path: Path) -> None:
    good, bad = measured(several_labels(tmp_path), tmp_path)
    assert good.measures["linear"].mean > 0.8 > bad.measures["linear"].mean
    assert good.measures["linear"].confusion == ()
    assert len(good.measures["linear"].by_class) == 3


@pytest.mark.parametrize("n_shared", [0, 1])
def test_labels_of_one_group_alone_are_no_test_of_search(
    tmp_path: Path, n_shared: int, caplog: pytest.LogCaptureFixture
) -> None:
    labels = ["high", "low"] * n_shared or ["high"]
    rows = [f"a{i}.wav,{label},a" for i, label in enumerate(labels * 4)]
    rows += [f"b{i}.wav,low,b" for i in range(4)] + [f"c{i}.wav,mid,c" for i in range(4)]
    task = tasks.load(write_table(tmp_path, "file_name,label,group", rows), 0.2)
    if not n_shared:
        with pytest.raises(TaskError, match="no round tests a label that it trains on"):
            measured(task, tmp_path)
        return
    search = measured(task, tmp_path)[0].measures["search"]
    told = r"12 test clips have labels that no clip trains in their round.*: high, low, mid; each"
    assert len(re.findall(told, caplog.text)) == 1  # those of "low" that are not tested validate
    assert 0 < len(search.values) < len(task.rounds)  # nothing is looked for in that of group c
    assert math.isfinite(search.mean)


def test_the_report_is_one_file_and_the_results_are_numbers(results: list, tmp_path: Path) -> None:
    everything = results + measured(several_labels(tmp_path), tmp_path)
    report.write_html(everything, Settings(), tmp_path / "report.html")
    report.write_json(everything, Settings(), tmp_path / "results.json")
    text = (tmp_path / "report.html").read_text()
    assert "&lt;chance&gt;" in text
    assert "<chance>" not in text
    assert not re.search(r"(src|href)=['\"](?!data:)", text)
    assert text.count("data:image/png;base64,") == (1 + 2 + 2) + (
        1 + 2
    )  # no confusion of several labels
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["tasks"]["tones"]["rounds"]["1"] == {"train": 38, "valid": 4, "test": 21}
    numbers = content["results"][0]["measures"]["linear"]
    assert numbers["mean"] == pytest.approx(math.fsum(numbers["values"]) / 3)


def test_a_label_is_drawn_as_it_is(results: list) -> None:
    """A `$` is no formula, and letters that the font lacks can be told from one another."""
    names = (r"$\foo$", "狗" * 99, "🐶")
    task = replace(results[0].task, classes=names)
    odd = replace(results[0], task=task, subject=replace(SUBJECTS[0], name=r"$\bar$"))
    assert figures.confusion(odd)
    assert figures.classes([odd])
    assert [figures._short(name) for name in names] == [
        r"\$\foo\$",
        r"\u72d7\u72d7\u72d7\u7…",
        r"\U0001f436",
    ]


def test_the_colours_of_a_map_are_those_of_labels_that_are_seen(
    results: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, n_clips = list[str](), len(results[0].task.files)
    monkeypatch.setattr(figures, "project", lambda vectors, seed: np.zeros((len(vectors), 2)))
    monkeypatch.setattr(
        figures.Figure,
        "legend",
        lambda _, handles, names, **how: named.extend(
            f"{name} {handle.get_color()}" for handle, name in zip(handles, names, strict=True)
        ),
    )
    labels = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], bool)[np.arange(n_clips) % 3]
    task = replace(results[0].task, classes=("never", "bb", "cc"), labels=labels)
    assert figures.map_of(replace(results[0], task=task), seed=0)
    first, last = matplotlib.colormaps["tab10"]([1, 2])
    assert named == [f"bb {tuple(first)}", f"cc {tuple(last)}"]


def test_a_map_of_few_clips_is_drawn_too() -> None:
    points = figures.project(noise(0.01).reshape(10, 16), seed=0)
    assert points.shape == (10, 2)
    assert np.isfinite(points).all()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), [str(argument) for argument in arguments])


def test_one_command_goes_from_files_to_a_report(tmp_path: Path) -> None:
    table = table_of_folds(tmp_path / "clips")
    options = ["--out", tmp_path / "out", "--cache", tmp_path / "cache", "--log-mel"]
    result = run("evaluate", f"{table}@0.2", *options)
    assert result.exit_code == 0, result.output
    assert re.search(r"tones, accuracy +default +\d+\.\d ± \d", result.output)
    assert "log-mel statistics" in result.output
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000
    assert (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.csv"], "no task at gone.csv"),
        (["gone.onnx", "gone.csv"], "no model file at gone.onnx"),
        (["esc51:somewhere"], "no collection 'esc51'"),
        (["esc50:nowhere@5"], "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    result = run("evaluate", *arguments, "--cache", tmp_path)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_models_without_a_task_are_a_usage_error() -> None:
    assert run("evaluate", "default.onnx").exit_code == 2


def test_broken_files_are_left_out_where_asked(tmp_path: Path) -> None:
    table = table_of_folds(tmp_path / "clips")
    (tmp_path / "clips" / "tones" / "003.wav").write_bytes(b"RIFF nothing")
    options = [f"{table}@0.2", "--cache", tmp_path / "cache"]
    refused = run("evaluate", *options)
    assert refused.exit_code == 1
    assert "tones/003.wav cannot be decoded" in refused.output
    allowed = run("evaluate", *options, "--skip-broken")
    assert allowed.exit_code == 0, allowed.output
    assert "left out tones/003.wav" in allowed.output
