"""`torchaudio:NAME:FOLDER` -> a task of a data set that torchaudio reads, from a local copy.

torchaudio tells which clips there are, their labels and their official split; our decoder reads
them. Nothing is downloaded. The folder is the `root` of torchaudio's class of that name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.labelled import tasks
from models.labelled.labels import Row
from models.labelled.tasks import Task, TaskError
from training.witness import WitnessError, torchaudio

PREFIX = "torchaudio"


@dataclass(frozen=True)
class Source:
    """How a class of torchaudio.datasets tells its clips."""

    label: int
    """Place of the label in what `get_metadata` returns; the path stands first."""

    group: int
    """Place of the speaker."""

    seconds: float
    splits: tuple[tuple[str, str], ...] = ()
    """Its names of the official parts, and ours; empty: there is no split."""

    base: str = "_path"
    """Its attribute that holds where paths start from."""

    takes_download: bool = False


SOURCES = {
    "SPEECHCOMMANDS": Source(
        label=2,
        group=3,
        seconds=1.0,
        splits=(("training", "train"), ("validation", "valid"), ("testing", "test")),
        base="_archive",
        takes_download=True,
    ),
    "FluentSpeechCommands": Source(
        label=5,
        group=3,
        seconds=2.3,
        splits=(("train", "train"), ("valid", "valid"), ("test", "test")),
    ),
    "IEMOCAP": Source(label=3, group=4, seconds=4.5),
}


def open_source(name: str, root: Path, seconds: float | None = None) -> Task:
    """The task of a data set.

    Raises:
        TaskError: no such data set, no local copy, or torchaudio cannot be loaded here.
    """
    if name not in SOURCES:
        raise TaskError(f"no data set {PREFIX}:{name}; there are {', '.join(SOURCES)}")
    if not root.is_dir():
        raise TaskError(f"{PREFIX}:{name}: {root} is not a folder; give {PREFIX}:{name}:FOLDER")
    try:
        kind = getattr(torchaudio().datasets, name)
    except WitnessError as error:
        raise TaskError(f"{PREFIX}:{name}: {error}") from error
    return assemble(name, kind, root, seconds)


def assemble(name: str, kind: Any, root: Path, seconds: float | None = None) -> Task:
    """The task of a class as torchaudio has them.

    Raises:
        TaskError: the local copy lacks something.
    """
    source = SOURCES[name]
    try:
        parts = list(_parts(kind, source, root))
    except (OSError, RuntimeError, ValueError) as error:
        raise TaskError(f"{PREFIX}:{name}: {root} is no copy that it reads: {error}") from error
    base = Path(getattr(parts[0][1], source.base))
    rows = [
        Row(str(path), str(found[source.label]), split=split, group=str(found[source.group]))
        for split, part in parts
        for found in map(part.get_metadata, range(len(part)))
        for path in [_below(base, found[0])]
    ]
    return tasks.assemble(
        name.lower(), rows, base, seconds or source.seconds, separator="", allow_leakage=True
    )


def _parts(kind: Any, source: Source, root: Path) -> Iterator[tuple[str, Any]]:
    options = {"download": False} if source.takes_download else {}
    for theirs, ours in source.splits:
        yield ours, kind(root, subset=theirs, **options)
    if not source.splits:
        yield "", kind(root, **options)


def _below(base: Path, path: str) -> Path:
    """A path as it starts from the base."""
    given = Path(path)
    return given.relative_to(base) if given.is_absolute() else given
