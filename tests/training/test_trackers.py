"""Weights & Biases and MLflow without a network: values are kept in the run's folder."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from training.recipe import load
from training.trackers import TrackerError, open_tracker

ROOT = Path(__file__).parent.parent.parent


def test_none_is_opened_unless_the_recipe_asks_for_it(tmp_path: Path) -> None:
    assert open_tracker(load("tiny"), tmp_path) is None


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_is_missing_is_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    with pytest.raises(TrackerError, match=rf"pip install 'viola-audio\[{name}\]'"):
        open_tracker(load("tiny", [f"run.tracker={name}"]), tmp_path)


PROGRAM = """
import sys
from pathlib import Path
from training.recipe import load
from training.trackers import open_tracker
name, folder = sys.argv[1], Path(sys.argv[2])
tracker = open_tracker(load("tiny", [f"run.tracker={name}"]), folder)
tracker.scalars(1, {"loss": 2.0})
tracker.scalars(2, {"loss": 1.0})
tracker.scalars(1, {"probe/a": 0.5})  # of a step that has passed
tracker.close()
"""


def track(name: str, folder: Path, **environment: str) -> None:
    """In a process of its own: the file is whole once that has ended."""
    pytest.importorskip(name)
    command = [sys.executable, "-c", PROGRAM, name, str(folder)]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment}
    subprocess.run(command, check=True, env=given, capture_output=True)


@pytest.mark.slow
def test_wandb_keeps_values_offline(tmp_path: Path) -> None:
    track("wandb", tmp_path, WANDB_MODE="offline")
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"probe/a" in kept.read_bytes()


@pytest.mark.slow
def test_mlflow_keeps_values_in_the_folder_and_a_run_that_goes_on_is_one(tmp_path: Path) -> None:
    for _ in range(2):
        track("mlflow", tmp_path, MLFLOW_TRACKING_URI="")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        runs = database.execute("select name, status from runs").fetchall()
        values = database.execute("select distinct key, step, value from metrics").fetchall()
        recipe = dict(database.execute("select key, value from params").fetchall())
    assert runs == [(f"tiny, {tmp_path.name}", "FINISHED")]
    assert set(values) == {("loss", 1, 2.0), ("loss", 2, 1.0), ("probe/a", 1, 0.5)}
    assert recipe["run.tracker"] == "mlflow"
