"""Checkpoints: one file, replaced atomically, that resumes a run or becomes a model file."""

import csv
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from models.atomic import publish, replacing
from models.modelfile import Training, TrainingSource
from models.nn.model import WaveformEncoder
from training.recipe import Recipe

FORMAT = 2
LAST, BEST = "checkpoint.pt", "best.pt"


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next step depends on, and what the exported card tells of the run."""

    recipe: dict[str, Any]
    mean: float
    std: float
    step: int
    seconds: float
    """Time spent on the steps so far."""

    best: float | None
    """Best mean probe accuracy so far."""

    corpus: dict[str, Any]
    """`fingerprint`, `clips`, `hours` and hours by source of the store."""
    commit: str
    """Git commit of the code when the run started, empty if unknown."""

    objective: Mapping[str, Any]
    views: Mapping[str, Any]
    """The mixup bank."""

    optimizer: Mapping[str, Any]


class Saver:
    """Writes the checkpoints of a run's folder in the background, while training goes on.

    `checkpoint.pt` is the last one and `best.pt` the one with the best probe; of those in between
    the latest `keep` stay as `step-NNNNNNNN.pt`.
    """

    def __init__(self, folder: Path, keep: int = 0) -> None:
        self.folder, self.keep = folder, keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, checkpoint: Checkpoint, *, best: bool = False) -> None:
        """Copy the state now and write it soon; waits for the one before, and raises its error."""
        self.wait()
        copied = tree_map_only(torch.Tensor, _to_host, _content(checkpoint))
        self._pending = self._writer.submit(self._write, copied, best)

    def wait(self) -> None:
        """Until everything is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Finish what is being written."""
        self._writer.shutdown()

    def _write(self, content: dict[str, Any], best: bool) -> None:
        last = self.folder / LAST
        with replacing(last) as temporary:
            torch.save(content, temporary)
        if best:
            _duplicate(last, self.folder / BEST)
        if self.keep:
            _duplicate(last, self.folder / f"step-{content['step']:08d}.pt")
            for old in sorted(self.folder.glob("step-*.pt"))[: -self.keep]:
                old.unlink()


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    values = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    return {"format": FORMAT, **values}


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _duplicate(path: Path, name: Path) -> None:
    """A second name for a finished file, or a copy where the file system has no links."""
    temporary = name.with_name(f"{name.name}.{os.getpid()}.tmp")
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    publish(temporary, name)


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        found = content.pop("format")
        if found != FORMAT:
            raise CheckpointError(
                f"{path} has checkpoint format {found}; this version reads {FORMAT}"
            )
        return Checkpoint(**content)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises a dozen kinds on a broken file
        raise CheckpointError(
            f"{path} is not a readable checkpoint: {type(error).__name__}"
        ) from error


def weights_alone(saved: Checkpoint) -> Checkpoint:
    """The networks in half precision, without moments and mixup bank: a tenth of the size.

    A run can begin with it (`--init`), and it can be exported; no run can be resumed from it.
    """
    objective = tree_map_only(torch.Tensor, _halved, dict(saved.objective))
    return replace(saved, objective=objective, views={}, optimizer={})


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def write(saved: Checkpoint, path: Path) -> None:
    """Write a checkpoint as `path`."""
    with replacing(path) as temporary:
        torch.save(_content(saved), temporary)


def encoder(saved: Checkpoint) -> WaveformEncoder:
    """The online encoder of a run with front end and normalisation: what is exported."""
    network = Recipe.model_validate(saved.recipe).encoder.build()
    prefix = "online.encoder."
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in saved.objective.items()
        if name.startswith(prefix)
    }
    network.load_state_dict(weights)
    return WaveformEncoder(network, saved.mean, saved.std).eval()


def provenance(saved: Checkpoint, hardware: str = "", manifests: Sequence[Path] = ()) -> Training:
    """What the card tells of a run; CSVs with `source` and `licence` columns add licences.

    Raises:
        CheckpointError: a CSV has other columns.
    """
    licences = _licences(manifests)
    recipe = Recipe.model_validate(saved.recipe)
    return Training(
        method=f"{recipe.objective.method}, recipe {recipe.name}",
        recipe=dict(saved.recipe),
        steps=saved.step,
        segments=saved.step * recipe.run.batch_size,
        seconds=round(saved.seconds, 1),
        hardware=hardware,
        hours=round(saved.corpus["hours"], 3),
        sources=[
            TrainingSource(
                name=name, hours=round(hours, 3), licences=sorted(licences.get(name, ()))
            )
            for name, hours in saved.corpus["sources"].items()
        ],
        commit=saved.commit,
    )


def _licences(manifests: Sequence[Path]) -> dict[str, set[str]]:
    """Licences by source."""
    licences: dict[str, set[str]] = {}
    for manifest in manifests:
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if not {"source", "licence"} <= set(rows.fieldnames or ()):
                raise CheckpointError(
                    f"{manifest} has columns {rows.fieldnames}; expected source and licence among "
                    "them"
                )
            for row in rows:
                licences.setdefault(row["source"], set()).add(row["licence"])
    return licences
