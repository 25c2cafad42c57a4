"""Where the values of a run go besides its folder: Weights & Biases or MLflow, as the recipe says.

`WANDB_MODE=offline` keeps them in the run's folder until `wandb sync` sends them; so does MLflow,
for `mlflow ui`, unless `MLFLOW_TRACKING_URI` names a server.
"""

import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from training.recipe import Recipe

PROJECT = "viola"


class TrackerError(RuntimeError):
    """A tracker that is not installed."""


class Tracker(Protocol):
    """Takes the values of steps."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step."""

    def close(self) -> None:
        """Send what is left."""


class WeightsAndBiases:
    """A run of that name in the project `viola`; one that goes on is the same run."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise _missing("wandb") from None
        self._run: Any = wandb.init(
            project=PROJECT,
            name=f"{recipe.name}, {folder.name}",
            id=_identity(folder),
            resume="allow",
            dir=str(folder),
            config=recipe.model_dump(mode="json"),
        )
        # The probe answers about a step that has passed: the axis is ours, not the order of calls
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class MLflow:
    """A run of that name in the experiment `viola`; one that goes on is the same run."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        try:
            import mlflow
        except ImportError:
            raise _missing("mlflow") from None
        kept_here = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._mlflow: Any = mlflow
        self._client: Any = mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or kept_here)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        self._run_id: str = self._found(experiment, folder) or self._made(
            experiment, recipe, folder
        )

    def _found(self, experiment: str, folder: Path) -> str | None:
        """The run of this folder, where it goes on."""
        same = f"tags.folder = '{_identity(folder)}'"
        found = self._client.search_runs([experiment], same, max_results=1)
        return found[0].info.run_id if found else None

    def _made(self, experiment: str, recipe: Recipe, folder: Path) -> str:
        name, tags = f"{recipe.name}, {folder.name}", {"folder": _identity(folder)}
        run_id: str = self._client.create_run(experiment, run_name=name, tags=tags).info.run_id
        for key, value in _flat(recipe.model_dump(mode="json")):
            self._client.log_param(run_id, key, value)
        return run_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step."""
        now = round(1000 * time.time())
        metrics = [self._mlflow.entities.Metric(k, v, now, step) for k, v in values.items()]
        self._client.log_batch(self._run_id, metrics)

    def close(self) -> None:
        """Say that the run has ended."""
        self._client.set_terminated(self._run_id)


def _identity(folder: Path) -> str:
    """The id by which a run is found again when it goes on: that of its folder."""
    whole = folder.resolve()
    return f"{whole.name}-{zlib.crc32(str(whole).encode()):08x}"


def _flat(recipe: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a recipe by the names that `--set` takes."""
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _missing(tracker: str) -> TrackerError:
    return TrackerError(
        f"run.tracker is {tracker}, which is not installed: pip install 'viola-audio[{tracker}]'"
    )


TRACKERS: Mapping[str, Callable[[Recipe, Path], Tracker]] = {
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def open_tracker(recipe: Recipe, folder: Path) -> Tracker | None:
    """The tracker that a recipe names, if any.

    Raises:
        TrackerError: it is not installed.
    """
    kind = TRACKERS.get(recipe.run.tracker)
    return kind(recipe, folder) if kind else None
