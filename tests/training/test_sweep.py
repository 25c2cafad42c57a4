"""Seeds and settings of one recipe, as one table."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.training.stores import write_task
from training.data.corpus import Corpus
from training.recipe import RecipeError
from training.sweep import Row, Variant, cells, sweep, table, variants

CPU = torch.device("cpu")
TINY = ["encoder.embed_dim=16", "objective.hidden_dim=16", "run.steps=2", "run.log_every=1"]


def test_values_that_vary_are_combined() -> None:
    assert variants([]) == [Variant(())]
    found = variants(['objective.name=["byol", "vicreg"]', "optimizer.lr=[1e-4, 0.01]"])
    assert [variant.name for variant in found] == [
        "objective.name=byol,optimizer.lr=0.0001",
        "objective.name=byol,optimizer.lr=0.01",
        "objective.name=vicreg,optimizer.lr=0.0001",
        "objective.name=vicreg,optimizer.lr=0.01",
    ]
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
