"""Checkpoints: one file, replaced atomically, that resumes a run or becomes a model file."""

import csv
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.atomic import replacing
from models.modelfile import Training, TrainingSource
from models.nn.model import WaveformEncoder
from training.recipe import Recipe

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the next step depends on, and what the exported card tells of the run."""

    recipe: dict[str, Any]
    mean: float
    std: float
    step: int
    train_seconds: float
    corpus: dict[str, Any]
    """`fingerprint`, `clips`, `hours` and hours by source of the store."""
    commit: str
    """Git commit of the code when the run started, empty if unknown."""

    objective: Mapping[str, Any]
    augment: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    history: list[dict[str, float]]
    """The logged scalars of the run so far, one mapping a logged step."""


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: a reader sees the old file or the new one, never a part."""
    fields = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, **fields}, temporary)


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


def provenance(saved: Checkpoint, hardware: str = "", manifest: Path | None = None) -> Training:
    """What the card tells of a run; a CSV with `source` and `licence` columns adds licences.

    Raises:
        CheckpointError: the CSV has other columns.
    """
    licences = _licences(manifest) if manifest else {}
    recipe = Recipe.model_validate(saved.recipe)
    return Training(
        method=f"{recipe.objective.name}, recipe {recipe.name}",
        recipe=dict(saved.recipe),
        steps=saved.step,
        segments=saved.step * recipe.run.batch_size,
        seconds=round(saved.train_seconds, 1),
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


def _licences(manifest: Path) -> dict[str, set[str]]:
    """Licences by source."""
    licences: dict[str, set[str]] = {}
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"source", "licence"} <= set(rows.fieldnames or ()):
            raise CheckpointError(
                f"{manifest} has columns {rows.fieldnames}; expected source and licence among them"
            )
        for row in rows:
            licences.setdefault(row["source"], set()).add(row["licence"])
    return licences


def git_commit() -> str:
    """Commit of this code, "-dirty" if it was changed since, empty if it is not in a repository."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    commands = (
        ["ls-files", "--error-unmatch", here.name],  # fails in a repository that is not ours
        ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
    )
    output = ""
    for command in commands:
        try:
            run = subprocess.run([*git, *command], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        output = run.stdout.strip()
    return output
