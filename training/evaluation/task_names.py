"""The names that a command line has for tasks -> the tasks."""

import re
from collections.abc import Sequence
from pathlib import Path

from models.labelled import tasks
from models.labelled.tasks import Task, TaskError
from training.evaluation.datasets import torchaudio_copy
from training.evaluation.datasets.local_copy import COLLECTIONS, open_copy

WITH_SECONDS = re.compile(r"(.+)@(\d+(?:\.\d+)?)")


def open_tasks(
    names: Sequence[str],
    *,
    root: Path | None = None,
    separator: str | None = None,
    seed: int = 42,
    allow_leakage: bool = False,
) -> list[Task]:
    """A task for each `PATH[@SECONDS]`, `COLLECTION:FOLDER[@SECONDS]`; see `tasks.load`.

    Or `torchaudio:NAME:FOLDER[@SECONDS]`, a data set that torchaudio reads.

    Raises:
        TaskError: a task that cannot be used, or two of one name.
    """
    opened: list[Task] = []
    for name in names:
        matched = WITH_SECONDS.fullmatch(name)
        place, seconds = (matched[1], float(matched[2])) if matched else (name, None)
        collection, _, folder = place.partition(":")
        if folder and collection == torchaudio_copy.PREFIX:
            source, _, copy = folder.partition(":")
            task = torchaudio_copy.open_source(source, Path(copy or "."), seconds)
        elif folder and (collection in COLLECTIONS or not Path(place).exists()):
            task = open_copy(collection, Path(folder), seconds)
        else:
            task = tasks.load(
                Path(place),
                seconds,
                root=root,
                separator=separator,
                seed=seed,
                allow_leakage=allow_leakage,
            )
        if task.name in [other.name for other in opened]:
            raise TaskError(f"two tasks are called {task.name}; rename one of them")
        opened.append(task)
    return opened
