"""What a run tells on its way: a line of metrics, TensorBoard, pictures of the augmented views."""

import json
import platform
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from models.atomic import replacing
from models.commit import git_commit
from training import pictures
from training.trackers import Tracker

RECIPE_NAME = "recipe.json"  # the first file of a record
METRICS_NAME = "metrics.jsonl"
VIEWS_NAME = "views"
PACKAGES = ("torch", "numpy", "librosa", "soundfile", "soxr", "viola-audio")


class RecordError(ValueError):
    """A file of a run's record that holds something else, or cannot be written."""


class Record:
    """Writes the record of a run into its folder, from the step on at which it begins.

    What an earlier process wrote of later steps is taken back: those steps are taken again.
    """

    def __init__(self, folder: Path, step: int, tracker: Tracker | None = None) -> None:
        self.folder, self._tracker = folder, tracker
        _take_back(folder, step)
        self._metrics = (folder / METRICS_NAME).open("a", buffering=1)  # a line at a time
        self._board = SummaryWriter(str(folder), purge_step=step + 1)
        self._drawer = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._drawing: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step; a name without a folder goes below `train/`."""
        self._write({"step": step, **values})
        for name, value in values.items():
            self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)
        if self._tracker:
            self._tracker.scalars(step, values)

    def alarm(self, step: int, message: str) -> None:
        """Note that something looks wrong."""
        self._write({"step": step, "alarm": message})
        self._board.add_text("alarm", message, step)

    def views(self, step: int, stages: Mapping[str, NDArray[np.float32]]) -> None:
        """Draw what each augmentation made of some segments, while the run goes on.

        Args:
            step: after which they were made.
            stages: name -> (n, F, T).
        """
        self._drawing.append(self._drawer.submit(self._draw, step, stages))

    def _draw(self, step: int, stages: Mapping[str, NDArray[np.float32]]) -> None:
        picture = pictures.views(stages)
        path = self.folder / VIEWS_NAME / f"step-{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(picture)
        self._board.add_image("views", pictures.pixels(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is buffered, and the pictures that are being drawn."""
        self._drawer.shutdown()
        drawing, self._drawing = self._drawing, []
        self._metrics.close()
        self._board.close()
        if self._tracker:
            self._tracker.close()
            self._tracker = None
        for drawn in drawing:
            drawn.result()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._metrics.write(json.dumps(line) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without a last one that was cut off.

    Raises:
        RecordError: a line is no object in JSON.
    """
    path = folder / METRICS_NAME
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [_object(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1)]


def read_facts(path: Path) -> dict[str, Any]:
    """An object of a run's record; an empty one where it has not been written.

    Raises:
        RecordError: the file holds something else.
    """
    return _object(str(path), path.read_text("utf-8", "replace")) if path.exists() else {}


def _object(where: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where} is not JSON: {error}; restore it, or remove it") from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise RecordError(f"{where} holds a {kind}; expected an object, as viola train writes it")
    return found


def environment() -> dict[str, Any]:
    """Where and with what a run computes."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "command": sys.argv,
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "host": platform.node(),
    }


def _take_back(folder: Path, step: int) -> None:
    """Drop lines and pictures of steps after `step`, and all of a run that begins again."""
    kept = read_metrics(folder) if step else []  # the untrained encoder's are of step 0
    lines = [json.dumps(line) + "\n" for line in kept if line["step"] <= step]
    with replacing(folder / METRICS_NAME) as temporary:
        temporary.write_text("".join(lines))
    for path in (folder / VIEWS_NAME).glob("step-*.png"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
