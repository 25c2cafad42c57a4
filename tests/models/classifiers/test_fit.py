import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import viola
from models.classifier import Classifier
from models.classifiers import calibration, cli, crossfit, graph, report, tested
from models.classifiers.card import Notes
from models.classifiers.estimators import LOGISTIC, MLP, Kind
from models.classifiers.fit import Embedded, FitError, Made, check_task, fit_embedded
from models.labelled import splits
from models.labelled.splits import Clues
from models.labelled.tasks import Task
from models.runtime import Encoder
from tests.labelled import table_of_folds, write_table
from tests.service.conftest import write_model

NAMES = ("a", "b", "c")
DIM = 4  # of the tiny encoder
NOTES = Notes("CC0-1.0", "made in a test")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.open(write_model(tmp_path_factory.mktemp("model") / "tiny.onnx"), threads=1)


def made(
    labels: np.ndarray, vectors: np.ndarray, groups: np.ndarray | None = None, n_folds: int = 3
) -> Embedded:
    """A task of these labels in folds, and its clips' vectors."""
    n = len(labels)
    digests = np.array([f"digest {i}" for i in range(n)])
    holds = labels if labels.ndim == 2 else labels[:, None] == np.arange(3)
    marks = digests if groups is None else groups
    clues = Clues(holds, marks, 0)
    folds = (splits.deal(np.arange(n), clues, n_folds) + 1).astype(np.str_)
    rounds = tuple(splits.in_turn(folds, clues))
    task = Task("made", NAMES, labels, rounds, groups, 0.5, (), tuple(digests))
    return Embedded(vectors.astype(np.float32), np.full(n, 0.5), task)


def clusters(n: int = 60, spread: float = 0.2) -> Embedded:
    """Three classes around three directions."""
    labels = np.arange(n) % 3
    noise = np.random.default_rng(0).normal(0, spread, (n, DIM))
    return made(labels, 3 * np.eye(3, DIM)[labels] + noise)


def overlapping(n: int = 60) -> Embedded:
    """Labels that hold by themselves, one direction each."""
    rng = np.random.default_rng(0)
    labels = rng.random((n, 3)) < 0.4
    return made(labels, labels @ np.eye(3, DIM) + rng.normal(0, 0.1, (n, DIM)))


def write(embedded: Embedded, encoder: Encoder, path: Path, kind: Kind = LOGISTIC) -> Classifier:
    fit_embedded(embedded, encoder, path, notes=NOTES, kind=kind, seed=1, console=QUIET)
    return Classifier.open(path)


@pytest.mark.parametrize("kind", [LOGISTIC, MLP], ids=lambda kind: kind.parameter)
def test_what_can_be_told_apart_is_learnt_and_the_card_says_so(
    encoder: Encoder, tmp_path: Path, kind: Kind
) -> None:
    embedded = clusters()
    head = write(embedded, encoder, tmp_path / "abc.onnx", kind)
    assert head.self_test() < 1e-4
    found = head.predict(embedded.vectors)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), embedded.task.labels)
    card = head.card
    assert (card.name, card.labels, card.multi_label) == ("abc", list(NAMES), False)
    assert (card.space_id, card.encoder) == (encoder.card.space_id, "tiny")
    assert (card.licence, card.description) == ("CC0-1.0", "made in a test")
    assert card.method.estimator == kind.name
    assert card.method.regularisation.startswith(f"{kind.parameter} = ")
    assert (card.scores.metric, len(card.scores.folds)) == ("accuracy", 3)
    assert card.scores.mean > 0.95
    assert {name: scores.clips for name, scores in card.scores.classes.items()} == dict.fromkeys(
        NAMES, 20
    )
    assert card.training.classes == dict.fromkeys(NAMES, 20)
    assert (card.training.clips, card.training.unit_s) == (60, 0.5)
    assert card.calibration.ece_after <= card.calibration.ece_before
    assert 0.8 < card.novelty.passing <= 1


@pytest.mark.parametrize("spread", [0.05, 0.2, 1.0, 2.0])
@pytest.mark.parametrize("n", [15, 60])
def test_calibration_is_kept_only_where_held_out_scores_get_no_worse(
    encoder: Encoder, tmp_path: Path, n: int, spread: float
) -> None:
    embedded = clusters(n, spread)
    made = fit_embedded(embedded, encoder, tmp_path / "abc.onnx", notes=NOTES, console=QUIET)
    errors, kept = made.card.calibration, made.card.calibration.method != "none"
    assert errors.ece_before == made.uncalibrated_error
    assert errors.ece_after <= errors.ece_before
    assert not kept or made.calibrated_error <= made.uncalibrated_error
    assert (errors.temperature is not None) == kept
    if not kept:  # the file answers what was judged
        found = Classifier.open(tmp_path / "abc.onnx").predict(embedded.vectors)
        raw = calibration.softmax(found.logits.astype(np.float64))
        np.testing.assert_allclose(found.probabilities, raw, atol=1e-5)


def test_a_direction_that_was_never_seen_is_novel(encoder: Encoder, tmp_path: Path) -> None:
    embedded = clusters()
    head = write(embedded, encoder, tmp_path / "abc.onnx")
    known = head.predict(embedded.vectors).novelty
    strange = head.predict(np.eye(DIM, dtype=np.float32)[3:]).novelty
    assert not head.card.is_novel(float(np.median(known)))
    assert head.card.is_novel(float(strange[0]))


def test_labels_without_a_pattern_score_at_chance(encoder: Encoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    embedded = made(np.arange(300) % 3, rng.normal(0, 1, (300, DIM)))
    card = write(embedded, encoder, tmp_path / "noise.onnx").card
    assert card.scores.mean == pytest.approx(1 / 3, abs=0.08)
    assert card.calibration.ece_after < 0.1


def test_labels_that_hold_together_have_thresholds_and_a_map(
    encoder: Encoder, tmp_path: Path
) -> None:
    embedded = overlapping()
    head = write(embedded, encoder, tmp_path / "several.onnx")
    card = head.card
    assert card.multi_label
    assert card.calibration.method in ("platt", "none")
    assert card.scores.metric == "mAP"
    assert card.scores.mean > 0.95
    chosen = head.predict(embedded.vectors).probabilities >= np.array(card.thresholds)
    assert (chosen == embedded.task.labels).mean() > 0.9


def test_the_same_seed_writes_the_same_file(encoder: Encoder, tmp_path: Path) -> None:
    kind = replace(MLP, choices=(1.0, 0.1))
    for folder in ("one", "two"):
        write(clusters(), encoder, tmp_path / folder / "abc.onnx", kind)
    one, two = (tmp_path / folder / "abc.onnx" for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_single_split_keeps_its_test_clips_unseen(encoder: Encoder, tmp_path: Path) -> None:
    embedded = clusters()
    (round_, *_) = embedded.task.rounds
    once = replace(embedded, task=replace(embedded.task, rounds=(round_,)))
    card = write(once, encoder, tmp_path / "abc.onnx").card
    assert card.training.clips == 60 - len(round_.test)
    assert len(card.scores.folds) == 2
    assert "test part" in card.scores.protocol


def test_groups_are_not_torn_when_a_regularisation_is_chosen() -> None:
    groups = np.array([f"speaker {i // 6}" for i in range(60)])
    task = made(np.arange(60) % 3, np.zeros((60, DIM)), groups).task
    clues = Clues(task.one_hot, groups, 0)
    (round_, *_) = task.rounds
    parts = crossfit._inner(round_, clues)
    assert len(parts) == crossfit.N_INNER
    for train, valid in parts:
        assert not set(groups[train]) & set(groups[valid])
        assert not {*train, *valid} & {*round_.test}


def test_two_speakers_are_enough(encoder: Encoder, tmp_path: Path) -> None:
    embedded = clusters()
    speakers = np.array([f"speaker {i // 30}" for i in range(60)])
    two = made(np.asarray(embedded.task.labels), embedded.vectors, speakers, n_folds=2)
    assert write(two, encoder, tmp_path / "abc.onnx").card.scores.mean > 0.95


def test_no_clip_is_judged_by_itself(encoder: Encoder) -> None:
    embedded = clusters(spread=2.0)
    held = crossfit.hold_out(LOGISTIC, embedded.vectors, embedded.task, embedded.task.rounds, 0)
    np.testing.assert_array_equal(np.sort(held.index), np.arange(60))
    labels = embedded.task.labels[held.index]
    changed = labels.copy()
    changed[held.part == 0] = (changed[held.part == 0] + 1) % 3
    one, two = (crossfit.judge(held, given) for given in (labels, changed))
    first = held.part == 0
    np.testing.assert_array_equal(one.probabilities[first], two.probabilities[first])
    assert not np.allclose(one.probabilities[~first], two.probabilities[~first])


def test_a_graph_that_differs_from_scikit_learn_is_not_written(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = graph.build

    def wrong(fitted, scaling, references, *, multi_label):
        off = replace(scaling, shift=scaling.shift + np.array([0.05, 0, 0]))
        return build(fitted, off, references, multi_label=multi_label)

    monkeypatch.setattr(graph, "build", wrong)
    with pytest.raises(FitError, match=r"off scikit-learn's.*Nothing was written"):
        write(clusters(), encoder, tmp_path / "abc.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a",), "labels": np.zeros(60, int)}, "has one class, 'a'"),
        ({"labels": np.arange(180).reshape(60, 3) % 2 < [[1, 1, 3]]}, "every clip is of class 'c'"),
        ({"labels": np.array([2] * 4 + [0, 1] * 28)}, "class 'c' has 4 clips, at least 5"),
    ],
)
def test_a_task_that_cannot_be_learnt_is_refused(change: dict, message: str) -> None:
    with pytest.raises(FitError, match=message):
        check_task(replace(clusters().task, **change))


def test_a_class_that_lies_in_one_fold_is_refused() -> None:
    task = clusters().task
    (round_, *_) = task.rounds
    labels = np.arange(60) % 2
    labels[round_.test[:8]] = 2
    with pytest.raises(FitError, match="no clip to train with in round 1 is of class 'c'"):
        check_task(replace(task, labels=labels))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), [str(argument) for argument in arguments])


def test_a_table_becomes_a_classifier_that_labels_files(encoder: Encoder, tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    task = table_of_folds(tmp_path)
    head = tmp_path / "pitch.onnx"
    fitted = run(
        *("fit", task, "-o", head, "--model", model, "--licence", "CC0-1.0", "--seed", 3),
        *("--source", "made=CC0-1.0", "--source", "other=CC-BY-4.0", "--description", "Pitches"),
    )
    assert fitted.exit_code == 0, fitted.output
    assert "3 labels in space space-of-tiny" in fitted.output
    card = Classifier.open(head).card
    assert card.labels == ["high", "low", "mid"]
    assert [(s.name, s.licence) for s in card.training.sources] == [
        ("made", "CC0-1.0"),
        ("other", "CC-BY-4.0"),
    ]
    assert card.method.seed == 3
    clip = sorted((tmp_path / "tones").glob("*.wav"))[1]  # of the class "low"
    labelled = run("classify", clip, "--head", head, "--model", model)
    assert labelled.exit_code == 0, labelled.output
    assert "low" in labelled.stdout.splitlines()[1]


def test_broken_clips_are_left_out_on_request(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    task = table_of_folds(tmp_path, n=33)
    (tmp_path / "tones" / "005.wav").write_bytes(b"RIFF")
    asked = ("fit", task, "-o", tmp_path / "pitch.onnx", "--model", model)
    refused = run(*asked)
    assert (refused.exit_code, "005.wav" in refused.output) == (1, True)
    fitted = run(*asked, "--skip-broken")
    assert fitted.exit_code == 0, fitted.output
    assert Classifier.open(tmp_path / "pitch.onnx").card.training.clips == 32


def test_what_a_person_can_put_right_is_one_line(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    head = tmp_path / "head.onnx"
    rows = [f"x/{i}.wav,{'low' if i else 'high'},{i % 3}" for i in range(12)]
    few = write_table(tmp_path / "few", "file_name,label,fold", rows)
    alone = [f"x/{i}.wav,{'low' if i % 2 else 'high'},one" for i in range(12)]
    single = write_table(tmp_path / "single", "file_name,label,group", alone)
    for arguments, message in (
        ((few, "--model", model), "class 'high' has 1 clips, at least 5"),
        ((single, "--model", model), "no clips to train"),
        ((tmp_path / "gone.csv", "--model", model), "no task at"),
        ((table_of_folds(tmp_path), "--model", few), "is not an ONNX file"),
    ):
        result = run("fit", *arguments, "-o", head)
        assert result.exit_code == 1, result.output
        assert message in " ".join(result.output.split())
        assert isinstance(result.exception, SystemExit)
    assert run("fit", few, "-o", head, "--source", "nameless").exit_code == 2
    assert run("fit", few, "-o", tmp_path / "head").exit_code == 2
    assert not head.exists()


@pytest.fixture
def fitted(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A task, a classifier of it, and the model of both."""
    model, task, head = write_model(tmp_path / "tiny.onnx"), table_of_folds(tmp_path), tmp_path
    result = run("fit", task, "-o", head / "pitch.onnx", "--model", model)
    assert result.exit_code == 0, result.output
    return task, head / "pitch.onnx", model


def test_a_report_tells_what_went_wrong_and_how_to_go_on(
    fitted: tuple[Path, Path, Path],
) -> None:
    task, head, _ = fitted
    text = head.with_suffix(".report.html").read_text()
    content = json.loads(head.with_suffix(".report.json").read_text())
    (test,) = content["tests"].values()
    assert np.array(test["confusion"]).sum() == test["clips"] == 30
    wrong = round(30 * (1 - test["accuracy"]))
    assert len(test["mistakes"]) == wrong
    assert all(m["file"] in text for m in test["mistakes"])
    assert "clips that it was not trained on" in text
    assert "average confidence" in text
    assert "viola classify new.wav --head pitch.onnx --model tiny.onnx" in text
    assert "viola serve --models FOLDER" in text
    card = Classifier.open(head).card.model_copy(update={"encoder": "default"})
    assert "--head pitch.onnx\nviola serve --models pitch.onnx" in report.how_to_use(card)
    assert "license" not in text
    assert "unknown" in text
    assert not re.search(r"(src|href)=['\"](?!data:)", text)


def said_of(truth: list, said: list, scores: list, *, multi_label: bool = True) -> tested.Tested:
    files = tuple(f"{k}.wav" for k in range(len(truth)))
    holds, predicted = np.array(truth, bool), np.array(said, bool)
    known = np.ones(len(files), bool)
    return tested.Tested(
        "a", NAMES[: holds.shape[1]], multi_label, files, holds, np.array(scores), predicted, known
    )


def test_a_mistake_is_as_sure_as_the_label_that_is_wrong() -> None:
    truth, said = [[1, 0], [1, 0], [0, 1]], [[1, 1], [0, 0], [0, 1]]
    scores = [[0.99, 0.6], [0.1, 0.2], [0.0, 1.0]]
    found = said_of(truth, said, scores).mistakes()
    assert [(one.file, one.score) for one in found] == [("1.wav", 0.9), ("0.wav", 0.6)]
    single = said_of([[1, 0]], [[0, 1]], [[0.2, 0.8]], multi_label=False)
    assert [one.score for one in single.mistakes()] == [0.8]


def test_scores_that_only_their_loss_keeps_from_calibration_are_not_called_worse(
    fitted: tuple[Path, Path, Path],
) -> None:
    card = Classifier.open(fitted[1]).card
    none = card.calibration.model_copy(update={"method": "none"})
    card = card.model_copy(update={"calibration": none})
    for after, why in ((0.3, "did not help (0.300)"), (0.1, "raised their log loss (0.100)")):
        made = Made(card, said_of([[1]], [[1]], [[1.0]]), 0.2, after)
        assert f"calibrating them {why}" in cli._calibration(made)


@pytest.mark.parametrize(("n_right", "learnt"), [(5, True), (3, True), (2, False), (0, False)])
def test_a_rare_label_that_is_told_apart_is_no_nothing(n_right: int, learnt: bool) -> None:
    """Always saying the other label is right about 97.5 %: no five points are left to gain."""
    truth = [[0, 1]] * 195 + [[1, 0]] * 5
    said = [[0, 1]] * 195 + [[1, 0]] * n_right + [[0, 1]] * (5 - n_right)
    sentences = tested.verdict(said_of(truth, said, said, multi_label=False))
    assert ("learnt next to nothing" in " ".join(sentences)) is not learnt


def test_a_report_of_many_labels_lists_what_is_confused(
    fitted: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """A matrix of a thousand is 50 MB of cells."""
    card = Classifier.open(fitted[1]).card
    for n_labels, cells in ((60, 60 * 60), (1000, 0)):
        truth = np.eye(n_labels, dtype=bool)
        said = truth.copy()
        said[3] = truth[5]
        labels = tuple(f"<{k}>" for k in range(n_labels))
        known = np.ones(n_labels, bool)
        answers = tested.Tested("many", labels, False, labels, truth, said * 1.0, said, known)
        report.write_html([("clips", answers)], card, tmp_path / "many.html")
        text = (tmp_path / "many.html").read_text()
        assert text.count("<td style=") == cells
        assert len(text) < 500_000
    assert "<td>&lt;3&gt;</td><td>&lt;5&gt;</td><td>1</td>" in text


def test_nothing_of_an_earlier_fit_is_replaced_unasked(fitted: tuple[Path, Path, Path]) -> None:
    task, head, model = fitted
    before = head.read_bytes()
    refused = run("fit", task, "-o", head, "--model", model, "--seed", 5)
    assert (refused.exit_code, "--force" in refused.output) == (2, True)
    assert head.read_bytes() == before
    assert run("fit", task, "-o", head, "--model", model, "--seed", 5, "--force").exit_code == 0


def test_a_classifier_is_put_to_other_clips(
    fitted: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    task, head, model = fitted
    renamed = head.rename(tmp_path / "renamed.onnx")
    asked = ("evaluate", renamed, model, task, "--out", tmp_path / "out")
    result = run(*asked, "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    assert "renamed, tones:" in result.output
    (test,) = json.loads((tmp_path / "out" / "renamed.json").read_text())["tests"].values()
    assert test["clips"] == 30
    assert test["accuracy"] > 0.5
    assert "renamed" in (tmp_path / "out" / "renamed.html").read_text()
    again = run(*asked, "--cache", tmp_path / "cache")
    assert (again.exit_code, "--force" in again.output) == (2, True)


def test_clips_that_a_classifier_learnt_from_are_no_test_and_it_says_so(
    fitted: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    task, head, model = fitted
    result = run("evaluate", head, model, task, "--cache", tmp_path / "cache")
    assert re.search(r"trained on \d+ of these\s+clips at least", result.output), result.output
    assert "of 30 clips; always saying" in " ".join(result.output.split())
    assert "not trained on" not in result.output


def test_a_classifier_is_not_put_to_what_it_cannot_answer(
    fitted: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    task, head, model = fitted
    alone = run("evaluate", head, task)
    assert alone.exit_code == 1
    assert "name its model file too" in " ".join(alone.output.split())
    rows = [f"x/{i}.wav,{'low' if i % 2 else 'thunder'},{i % 3}" for i in range(12)]
    other = write_table(tmp_path / "other", "file_name,label,fold", rows)
    unknown = run("evaluate", head, model, other)
    assert unknown.exit_code == 1
    assert "does not know: thunder" in " ".join(unknown.output.split())
    rows = [f"x/{i}.wav,{('low', 'low;high', ';')[i % 3]}" for i in range(12)]
    several = run("evaluate", head, model, write_table(tmp_path / "2", "file_name,label", rows))
    assert several.exit_code == 1
    assert "x/1.wav, x/2.wav, x/4.wav and 5 more have none or" in " ".join(several.output.split())
