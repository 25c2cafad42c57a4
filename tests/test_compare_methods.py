"""The comparison of methods, on a store of ten clips and a task of tones."""

import json
import os
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.labelled import table_of_folds
from tests.training.stores import write_noise
from training.recipe import load, named_recipes

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TINY = ["encoder.embed_dim=16", "encoder.n_channels=8", "objective.hidden_dim=32"]
TINY += ["objective.projection_dim=16"]

VARIANTS = """
baseline = "byol"
core = ["byol"]
[variants]
byol = []
small = ["run.batch_size=4"]
no-crop = ["augment.resize_crop=false"]
diverged = ["optimizer.lr=1e30"]
[groups.batches]
title = "Batches"
variants = ["byol", "small"]
[groups.ablations]
title = "Blocks"
variants = ["byol", "no-crop", "diverged"]
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store`, `tasks` and `variants.toml`."""
    folder = tmp_path_factory.mktemp("comparison")
    write_noise(folder)
    table_of_folds(folder / "tasks")
    (folder / "variants.toml").write_text(VARIANTS)
    return folder


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The script sets how many threads its process has; other tests go on with theirs."""
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def compare(material: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The script with these arguments, in this process; its results as JSON."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import compare_methods

    monkeypatch.setattr(compare_methods, "available_cpus", lambda: 1)  # as in the other tests

    def run(*arguments: str, out: Path = tmp_path) -> dict:
        given = ["--store", material / "store", "--tasks", material / "tasks", "--out", out]
        given += ["--recipe", "tiny", "--variants", material / "variants.toml", *arguments]
        given += ["--set", *TINY]
        monkeypatch.setattr(sys, "argv", ["compare_methods.py", *map(str, given)])
        compare_methods.main()
        return json.loads((out / "compare_methods.json").read_text())

    return run


def rows_of(results: dict) -> dict[tuple[str, int], dict]:
    return {(row["variant"], row["seed"]): row for row in results["rows"]}


def test_every_variant_sees_as_many_segments_and_is_probed(compare, tmp_path: Path) -> None:
    rows = rows_of(compare("--segments", "24", "--core-seeds", "2"))
    assert {name for name, _ in rows} == {
        *("byol", "small", "no-crop", "diverged", "untrained", "log-mel")
    }
    assert {seed for name, seed in rows if name == "byol"} == {42, 43}
    for (name, _), row in rows.items():
        trained = name not in ("untrained", "log-mel", "diverged")
        assert row["steps"] * row["batch_size"] == (24 if trained else 0)
        if name != "diverged":
            assert set(row["scores"]["tones"]) == {"linear", "knn"}
            assert 0 <= min(row["scores"]["tones"].values()) <= 1
    assert rows["byol", 42]["loss"] != rows["byol", 43]["loss"]
    table = (tmp_path / "compare_methods.md").read_text()
    assert "## Blocks" in table
    assert "| **byol** | 2 | 3 |" in table
    assert "| diverged | | | | | the loss of step" in table
    figures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert figures == ["compare_ablations.png", "compare_batches.png"]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_row_that_is_there_with_the_same_settings_is_not_trained_again(
    compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows_of(compare("--segments", "16", "--only", "byol"))
    after = rows_of(compare("--segments", "16", "--only", "ablations"))
    assert "1 of 3 rows are there" in capsys.readouterr().out
    assert after["byol", 42] == before["byol", 42]
    assert len(after) == 3
    other = tmp_path / "other.toml"
    other.write_text(VARIANTS.replace("resize_crop=false", "fader_gain=0"))
    changed = rows_of(compare("--segments", "16", "--only", "ablations", "--variants", other))
    assert "2 of 3 rows are there" in capsys.readouterr().out
    assert changed["no-crop", 42]["loss"] != after["no-crop", 42]["loss"]
    assert changed["byol", 42] == after["byol", 42]
    assert len(changed) == 3


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--segments", "24"], "segments"),
        (["--segments", "16", "--clips", "25"], "clips"),
        (["--segments", "16", "--recipe", "byol-a-v1"], "recipe"),
    ],
)
def test_rows_that_do_not_compare_are_kept_apart(
    compare, tmp_path: Path, arguments: list[str], what: str
) -> None:
    compare("--segments", "16", "--only", "log-mel")
    before = (tmp_path / "compare_methods.json").read_bytes()
    with pytest.raises(SystemExit, match=f"rows of other {what}, .* name another --out"):
        compare(*arguments, "--only", "log-mel")
    assert (tmp_path / "compare_methods.json").read_bytes() == before


def test_a_run_that_was_cut_off_goes_on_with_what_is_missing(
    compare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import compare_methods

    compute = compare_methods.compute

    def interrupted(job):
        if job.variant == "no-crop":
            raise KeyboardInterrupt
        return compute(job)

    monkeypatch.setattr(compare_methods, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare("--segments", "16", "--only", "byol", "no-crop")
    left = json.loads((tmp_path / "compare_methods.json").read_text())
    assert list(rows_of(left)) == [("byol", 42)]
    trained = []
    monkeypatch.setattr(
        compare_methods, "compute", lambda job: trained.append(job.variant) or compute(job)
    )
    compare("--segments", "16", "--only", "byol", "no-crop")
    assert trained == ["no-crop"]


def test_a_row_that_was_cut_off_goes_on_from_its_checkpoint(
    compare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from comparison import row

    whole = rows_of(compare("--segments", "40", "--only", "byol", out=tmp_path / "whole"))
    step, taken = row.Run.train_step, []

    def stopped(run):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(run.step)
        return step(run)

    monkeypatch.setattr(row, "SAVE_S", 0.0)
    monkeypatch.setattr(row.Run, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare("--segments", "40", "--only", "byol")
    assert len(list((tmp_path / "unfinished").iterdir())) == 2
    monkeypatch.setattr(row.Run, "train_step", lambda run: taken.append(run.step) or step(run))
    rows = rows_of(compare("--segments", "40", "--only", "byol"))
    assert taken == [0, 1, 2, 3, 4]
    assert {**rows["byol", 42], "seconds": 0} == {**whole["byol", 42], "seconds": 0}
    assert not (tmp_path / "unfinished").exists()


def test_the_same_seed_gives_the_same_numbers(compare, tmp_path: Path) -> None:
    first, second = (
        rows_of(compare("--segments", "16", "--only", "byol", out=tmp_path / name))
        for name in ("one", "two")
    )
    one, two = first["byol", 42], second["byol", 42]
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "byoll"], "no variant or group byoll; there are the groups batches, ablations"),
        (["--segments", "20"], "no whole batches of variant byol; give a multiple of 8"),
        (["--recipe", "huge"], "variant byol: no recipe 'huge'"),
        (["--tasks", "/gone"], "no NAME.csv in /gone"),
        (["--store", "/gone"], "/gone"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    compare, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        compare("--segments", "16", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_is_not_overwritten(compare, tmp_path: Path) -> None:
    (tmp_path / "compare_methods.json").write_text('{"rows": [{"colour": "red"}]}')
    with pytest.raises(SystemExit, match="holds no rows of a comparison"):
        compare("--segments", "16", "--only", "byol")
    assert "red" in (tmp_path / "compare_methods.json").read_text()


def test_some_clips_keep_the_shares_of_folds_and_classes(compare, tmp_path: Path) -> None:
    from comparison.plan import ComparisonError
    from comparison.row import some_clips

    from models.labelled import tasks

    task = tasks.load(table_of_folds(tmp_path, n=180))
    some = some_clips(task, 90)
    assert some.n_clips == 90
    assert [len(round_.test) for round_ in some.rounds] == [30, 30, 30]
    for mine, whole in zip(some.rounds, task.rounds, strict=True):
        assert some.one_hot[mine.test].sum(0).tolist() == [10, 10, 10]
        for part in ("train", "valid", "test"):
            kept = {some.digests[i] for i in getattr(mine, part)}
            assert kept <= {task.digests[i] for i in getattr(whole, part)}
    assert some_clips(task, 0) is task
    with pytest.raises(ComparisonError, match="--clips 3 leave a round of tones without"):
        some_clips(task, 3)


def test_the_plan_that_ships_names_no_variant_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(BENCHMARKS / "compare_methods.py")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [script, "--list"])
    runpy.run_path(script, run_name="__main__")
    told = capsys.readouterr().out
    for name in ("tribyol-32", "group-norm-ws", "newton-schulz-twice", "no-pre-norm"):
        assert name in told


@pytest.mark.parametrize(
    "recipe", [name for name in named_recipes() if load(name).objective.name == "byol"]
)
def test_every_variant_that_ships_is_a_change_of_every_recipe_of_byol(recipe: str) -> None:
    plan = tomllib.loads((BENCHMARKS / "comparison" / "variants.toml").read_text())
    for settings in plan["variants"].values():
        load(recipe, settings)


@pytest.mark.slow
def test_rows_in_processes_of_their_own_have_the_same_numbers(
    compare, material: Path, tmp_path: Path
) -> None:
    alone = rows_of(compare("--segments", "16", "--only", "batches"))
    script = [sys.executable, BENCHMARKS / "compare_methods.py", "--workers", "2"]
    script += ["--store", material / "store", "--tasks", material / "tasks", "--recipe", "tiny"]
    script += ["--variants", material / "variants.toml", "--out", tmp_path / "two"]
    script += ["--segments", "16", "--only", "batches", "--set", *TINY]
    root = BENCHMARKS.parent
    subprocess.run(script, check=True, cwd=root, env={"PYTHONPATH": str(root)})
    results = json.loads((tmp_path / "two" / "compare_methods.json").read_text())
    for key, row in rows_of(results).items():
        assert row["scores"] == alone[key]["scores"]
