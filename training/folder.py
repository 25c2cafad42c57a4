"""The folder of a run: one process writes to it, and a full disk has a clear message."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.atomic import FULL
from models.lock import locked
from training.record import RECIPE_NAME, RecordError
from training.run import TrainingError

LOCK_NAME = "train.lock"
CACHES_NAME = "compiled"  # of torch, for when the run goes on


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Make the folder of a run if missing, and be the only process that writes to it.

    A run that is refused before it has a record leaves neither lock nor empty folder. Checkpoints
    that a process was writing when it was killed are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    message = f"another process trains in {folder}; wait for it to end, or name another folder"
    with locked(folder / LOCK_NAME, TrainingError(message)):
        for leftover in folder.glob("*.pt.*.tmp"):
            leftover.unlink()
        try:
            yield
        finally:
            if not (folder / RECIPE_NAME).exists():
                (folder / LOCK_NAME).unlink(missing_ok=True)
                caches = folder / CACHES_NAME
                for empty in (*sorted(caches.rglob("*"), reverse=True), caches, folder):
                    with suppress(OSError):  # something is in it
                        empty.rmdir()


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Say what to do where the disk of a run's folder is full.

    The thread of TensorBoard prints no traceback of it: the next value that is written raises.

    Raises:
        RecordError: in place of the `OSError`.
    """
    shown = threading.excepthook

    def show(thrown: threading.ExceptHookArgs) -> None:
        if not _is_full(thrown.exc_value):
            shown(thrown)

    threading.excepthook = show
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        raise RecordError(
            f"{folder} cannot be written: {error.strerror}. Make room, and go on from the last "
            "checkpoint with --resume; where there is none yet, begin again"
        ) from error
    finally:
        threading.excepthook = shown


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in FULL
