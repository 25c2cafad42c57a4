"""What a stage gets and what it tells."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Row:
    """One line of the table; `passed` None: a figure that nothing was promised about."""

    what: str
    value: str
    passed: bool | None = None


@dataclass(frozen=True)
class Context:
    """Where and on what a stage works."""

    out: Path
    """What comes back; a folder for each stage that leaves files."""

    store: Path
    """Made of noise, unless one was given."""

    tasks: tuple[Path, ...]
    device: torch.device
    seconds: float
    """That the stage may take."""

    rehearse: bool
    """On a CPU, with networks and numbers of steps that take seconds."""

    def pick(self, real: int, rehearsed: int) -> int:
        """A number of steps, say, for a GPU or for the rehearsal."""
        return rehearsed if self.rehearse else real

    @property
    def small(self) -> list[str]:
        """Settings of the rehearsal's networks."""
        return SMALL if self.rehearse else []


SMALL = [
    "encoder.n_channels=4",
    "encoder.embed_dim=80",
    "encoder.hidden_dim=16",
    "objective.hidden_dim=32",
    "objective.projection_dim=16",
    "augment.mixup_bank=32",
    "run.batch_size=8",
    "data.segment_s=0.5",
]


def write(rows: list[Row], path: Path) -> None:
    """Keep the rows of a stage."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def read(path: Path) -> list[Row]:
    """The rows that a stage kept; none if it did not come so far."""
    return [Row(**row) for row in json.loads(path.read_text())] if path.is_file() else []
