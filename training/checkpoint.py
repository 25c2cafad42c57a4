"""Checkpoints: one file, replaced atomically, that resumes a run or becomes a model file."""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from models import spreadsheet
from models.atomic import replacing
from models.card import Training, TrainingSource
from models.nn.model import WaveformEncoder
from models.spreadsheet import SpreadsheetError
from training.recipe import Recipe

FORMAT = 2
LAST, BEST, CANDIDATE = "checkpoint.pt", "best.pt", "candidate.pt"


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
    scaler: Mapping[str, Any] = field(default_factory=dict)
    """Of the loss in float16; empty in other precisions."""

    initial: Mapping[str, Any] | None = None
    """The card's `Training` of the weights that the run began with; None: they were random."""


class Saver:
    """Writes the checkpoints of a run's folder in the background, while training goes on.

    `checkpoint.pt` is the last one and `best.pt` the one with the best probe; of those in between
    the latest `keep` stay as `step-NNNNNNNN.pt`.
    """

    def __init__(self, folder: Path, keep: int = 0) -> None:
        self.folder, self.keep = folder, keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, checkpoint: Checkpoint, *, best: bool = False, candidate: bool = False) -> None:
        """Copy the state now and write it soon; waits for the one before, and raises its error.

        `candidate`: keep it aside, for `promote`.
        """
        self.wait()
        copied = HostCopy(_content(checkpoint))
        self._pending = self._writer.submit(self._write, copied, best, candidate)

    def promote(self) -> None:
        """Make the last candidate `best.pt`."""
        self.wait()
        self._pending = self._writer.submit(_duplicate, self.folder / CANDIDATE, self.folder / BEST)

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._pending:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Finish what is being written; a candidate is of no use any more."""
        self._writer.shutdown()
        (self.folder / CANDIDATE).unlink(missing_ok=True)

    def _write(self, copied: "HostCopy", best: bool, candidate: bool) -> None:
        last, content = self.folder / LAST, copied.content()
        _save(content, last)
        for wanted, name in ((best, BEST), (candidate, CANDIDATE)):
            if wanted:
                _duplicate(last, self.folder / name)
        if self.keep:
            _duplicate(last, self.folder / f"step-{content['step']:08d}.pt")
            for old in sorted(self.folder.glob("step-*.pt"))[: -self.keep]:
                old.unlink()


class HostCopy:
    """A copy in host memory of a nested dict, with the values that its tensors have now.

    Tensors on a GPU are copied there first, which takes a moment, and then to pinned memory in a
    stream of its own: the next step neither waits for the copy nor changes it.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        found = [t for t in tree_leaves(content) if isinstance(t, torch.Tensor) and t.is_cuda]
        self._device = found[0].device if found else None
        self._event: torch.cuda.Event | None = None
        self._kept: Any = None
        if self._device is None:
            self._content = tree_map_only(torch.Tensor, _to_host, content)
            return
        self._kept = tree_map_only(torch.Tensor, lambda t: t.detach().clone(), content)
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._content = tree_map_only(torch.Tensor, _to_pinned, self._kept)
            self._event = stream.record_event()

    def content(self) -> dict[str, Any]:
        """What was copied, once all of it is there."""
        if self._event is not None:
            self._event.synchronize()
            self._kept = None
        copied: dict[str, Any] = self._content
        return copied


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    values = {each.name: getattr(checkpoint, each.name) for each in fields(checkpoint)}
    return {"format": FORMAT, **values}


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _to_pinned(tensor: torch.Tensor) -> torch.Tensor:
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def _duplicate(path: Path, name: Path) -> None:
    """A second name for a finished file, or a copy where the file system has no links."""
    with replacing(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def is_one(path: Path) -> bool:
    """Whether a file holds a checkpoint of ours, rather than weights in another layout."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # `load` says what is wrong with it
        return True
    return isinstance(content, dict) and "format" in content


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: no such file, not a checkpoint, or one of another format.
    """
    if path.is_dir():
        there = ", ".join(sorted(file.name for file in path.glob("*.pt"))) or "none is there"
        raise CheckpointError(f"{path} is a folder; name a checkpoint in it: {there}")
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
            f"{path} is not a readable checkpoint ({type(error).__name__}): damaged, or no run's. "
            "Name the checkpoint.pt or best.pt of a run's folder; viola import takes weights in "
            "the BYOL-A authors' layout"
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
    _save(_content(saved), path)


def _save(content: dict[str, Any], path: Path) -> None:
    """Put a file in its place once it is whole.

    Raises:
        CheckpointError: torch could not write it; what was there before is kept.
    """
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch's writer tells of a full disk by a position
            raise CheckpointError(
                f"{path} could not be written: {error}. Is the disk full? What was there is kept"
            ) from error


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
    recipe = Recipe.model_validate(saved.recipe)
    training = Training(
        method=f"{recipe.objective.method}, recipe {recipe.name}",
        recipe=dict(saved.recipe),
        steps=saved.step,
        segments=saved.step * recipe.run.batch_size,
        seconds=round(saved.seconds, 1),
        hardware=hardware,
        hours=round(saved.corpus["hours"], 3),
        sources=[
            TrainingSource(name=name, hours=round(hours, 3))
            for name, hours in saved.corpus["sources"].items()
        ],
        commit=saved.commit,
        initial=Training.model_validate(saved.initial) if saved.initial else None,
    )
    return _with_licences(training, _licences(manifests))


def _with_licences(training: Training, licences: Mapping[str, set[str]]) -> Training:
    """Licences for the sources that have none yet, also for those of the weights it began with."""
    sources = [
        source.model_copy(
            update={"licences": source.licences or sorted(licences.get(source.name, ()))}
        )
        for source in training.sources
    ]
    initial = training.initial and _with_licences(training.initial, licences)
    return training.model_copy(update={"sources": sources, "initial": initial})


def _licences(manifests: Sequence[Path]) -> dict[str, set[str]]:
    """Licences by source."""
    licences: dict[str, set[str]] = {}
    for manifest in manifests:
        try:
            rows = spreadsheet.rows(spreadsheet.text_of(manifest))
        except SpreadsheetError as error:
            raise CheckpointError(str(error)) from None
        if not {"source", "licence"} <= set(rows.fieldnames or ()):
            raise CheckpointError(
                f"{manifest} has columns {rows.fieldnames}; expected source and licence among them"
            )
        for row in rows:
            licences.setdefault(row["source"], set()).add(row["licence"])
    return licences
