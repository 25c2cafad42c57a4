"""`NAME:FOLDER` -> the task of a standard collection, with its official split.

Each collection is a module beside this one: what it is, `SECONDS`, the unit length of EVAR, and
`rows`, which reads its metadata. They were written from the collections' documentation and are
tested on made-up folders of their layout; none of the collections was at hand.
"""

from importlib import import_module
from pathlib import Path

from models.labelled import tasks
from models.labelled.tasks import Task, TaskError

COLLECTIONS = (
    "cremad",
    "esc50",
    "fsd50k",
    "gtzan",
    "nsynth",
    "spcv2",
    "us8k",
    "voxceleb1",
    "voxforge",
)


def open_copy(name: str, root: Path, seconds: float | None = None) -> Task:
    """The task of the collection `name`, whose files lie in `root`.

    Official splits are taken as they are: what a group or a copy leaks is a warning.

    Raises:
        TaskError: no such collection, or the folder lacks something.
    """
    if name not in COLLECTIONS:
        raise TaskError(f"no collection {name!r}; there are {', '.join(COLLECTIONS)}")
    if not root.is_dir():
        raise TaskError(f"{name}: {root} is not a folder; give the local copy of the collection")
    module = import_module(f"training.evaluation.datasets.{name}")
    return tasks.assemble(
        name,
        module.rows(root),
        root,
        seconds or module.SECONDS,
        separator=getattr(module, "SEPARATOR", ""),
        allow_leakage=True,
    )
