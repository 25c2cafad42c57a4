"""Seeds and settings of one recipe, as one table."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from models.lock import locked
from tests.training.stores import write_noise, write_task
from training.data.corpus import Corpus
from training.recipe import RecipeError
from training.record import RecordError
from training.run import TrainingError
from training.sweep import LOCK_NAME, Row, Variant, cells, sweep, table, variants

pytestmark = pytest.mark.usefixtures("undrawn")

CPU = torch.device("cpu")
TINY = ["encoder.embed_dim=16", "encoder.n_channels=8", "objective.hidden_dim=16"]
TINY += ["run.steps=2", "run.log_every=1"]


def test_values_that_vary_are_combined() -> None:
    assert variants([]) == [Variant(())]
    found = variants(['objective.name=["byol", "vicreg"]', "optimizer.lr=[1e-4, 0.01]"])
    assert [variant.name for variant in found] == [
        "objective.name=byol,optimizer.lr=0.0001",
        "objective.name=byol,optimizer.lr=0.01",
        "objective.name=vicreg,optimizer.lr=0.0001",
        "objective.name=vicreg,optimizer.lr=0.01",
    ]
    weights = ["{a = 1.0, 'b c' = [true, 2]}", "{}"]  # values of all kinds, as TOML has them
    (first, second) = variants([f"data.weights=[{', '.join(weights)}]"])
    assert [first.settings, second.settings] == [
        ('data.weights={"a" = 1.0, "b c" = [true, 2]}',),
        ("data.weights={}",),
    ]
    (day,) = variants(["optimizer.lr=[2020-01-01]"])  # the recipe says that it is no number
    assert day.settings == ("optimizer.lr=2020-01-01",)
    for wrong in ("optimizer.lr=1e-4", "optimizer.lr=[]", "optimizer.lr"):
        with pytest.raises(RecipeError, match=r"expected section\.key=\[value, value\]"):
            variants([wrong])


def test_a_sweep_has_a_row_a_variant_and_what_is_done_is_not_done_again(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    settings = [*TINY, f"probe.tasks=['{write_task(tmp_path)}']"]
    chosen = variants(["optimizer.lr=[1e-4, 1e30]"])
    folder = tmp_path / "sweep"

    def rows() -> list[Row]:
        return sweep("tiny", settings, chosen, 2, corpus, folder, CPU, quiet)

    folder.mkdir()
    with (
        locked(folder / LOCK_NAME, AssertionError()),  # as if it were another process
        pytest.raises(TrainingError, match=f"another process sweeps in {folder}"),
    ):
        rows()
    good, diverged = rows()
    assert (good.runs, good.failed, diverged.failed) == (2, 0, 2)
    assert good.probe is not None
    assert good.probe_std is not None
    assert good.untrained is not None
    assert diverged.probe is None
    narrow = Console(width=80, file=io.StringIO())
    narrow.print(table([good, diverged]))
    assert isinstance(narrow.file, io.StringIO)
    for name in ("0.0001", "1e+30"):  # what tells the rows apart is all there, on some lines
        assert name in narrow.file.getvalue()
    written = (folder / "sweep.md").read_text()
    assert written.count("\n") == 4
    assert cells(good)[3] in written
    done = folder / "optimizer.lr=0.0001" / "seed-42" / "checkpoint.pt"
    before = done.stat().st_mtime_ns
    assert rows()[0] == good
    assert done.stat().st_mtime_ns == before


def test_a_slip_is_told_before_anything_is_trained(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    with pytest.raises(RecipeError, match="optimizer"):
        sweep("tiny", [], variants(["optimizer.lr=[1e-4, -1]"]), 1, corpus, tmp_path, CPU, quiet)
    assert not list(tmp_path.iterdir())


def test_no_two_rows_are_of_one_run() -> None:
    for values in ("1e-4, 0.0001", '"a/b", "ab"'):
        with pytest.raises(RecipeError, match="two variants are called optimizer.lr="):
            variants([f"optimizer.lr=[{values}]"])
    with pytest.raises(RecipeError, match="--vary optimizer.lr is given twice"):
        variants(["optimizer.lr=[1e-4]", "optimizer.lr =[1e-3]"])


def test_the_seed_is_the_sweeps_own(corpus: Corpus, tmp_path: Path, quiet: Console) -> None:
    for settings, vary in ((["run.seed=7"], []), ([], ["run.seed=[1, 2]"])):
        with pytest.raises(RecipeError, match="sets run.seed itself, from 42 on.*--seeds"):
            sweep("tiny", settings, variants(vary), 1, corpus, tmp_path, CPU, quiet)


def test_the_result_of_another_run_is_not_taken_for_this_ones(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    task = f"probe.tasks=['{write_task(tmp_path / 'task')}']"
    place = tmp_path / "recipe" / "seed-42"

    def rows(*settings: str, on: Corpus = corpus) -> list[Row]:
        return sweep("tiny", [*TINY, *settings], variants([]), 1, on, tmp_path, CPU, quiet)

    assert rows()[0].runs == 1
    assert rows("data.workers=1")[0].runs == 1  # which no result depends on
    for other, told in (("run.steps=3", "run.steps was 2, is 3"), (task, "probe.tasks was")):
        with pytest.raises(TrainingError, match=f"{place} .*{told}.*--out"):
            rows(other)
    with pytest.raises(TrainingError, match="the store is another one"):
        rows(on=Corpus(write_noise(tmp_path / "other", 4)))
    (place / "state.json").write_text("{")
    with pytest.raises(RecordError, match="state.json is not JSON"):
        rows()
