"""What lies in the folder of a store: its database, and what is derived from it or waits for it."""

import os
from pathlib import Path

from service.collections.records import StoreError

FILE = "viola.sqlite"
LOG = FILE + "-wal"  # SQLite's own: what is committed, and not in the file yet
INDEXES = "indexes"  # of searches that need not be exact
QUEUE = "queue"  # of jobs


def refuse_a_lost_database(folder: Path) -> None:
    """Refuse to begin anew where a database was: SQLite takes a file without bytes for a new one.

    It would also delete the log, which may hold all that is left.

    Raises:
        StoreError: the file is empty or missing, and what belongs to it is there.
        OSError: the folder cannot be read.
    """
    file = folder / FILE
    # Before the file: another process that begins makes that one first
    left = [LOG] if _has_bytes(folder / LOG) else []
    left += [name for name in (INDEXES, QUEUE) if _has_files(folder / name)]
    if left and not _has_bytes(file):
        state = "is empty" if file.exists() else "is missing"
        raise StoreError(
            f"the database {file} {state}, though {' and '.join(left)} beside it "
            f"{'was' if len(left) == 1 else 'were'} written with one: its content is lost, or lies "
            f"elsewhere. Put it back, as from a backup; or remove {' and '.join(left)}, to begin "
            "with no collections and no jobs"
        )


def refuse_what_cannot_be_written(folder: Path) -> None:
    """Refuse a folder, or files of a database in it, that this user may not change.

    SQLite says no more than that it cannot open one of them.

    Raises:
        StoreError: the first that cannot be written, and what to do about it.
    """
    for path in (folder, *(folder / name for name in (FILE, LOG, INDEXES, QUEUE))):
        needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
        if path.exists() and not os.access(path, needed):
            raise StoreError(
                f"{path} cannot be read and written by {_user()}: give it to that user, mount it "
                "so that it can be written, or name another folder"
            )


def _user() -> str:
    return f"user {os.geteuid()}" if hasattr(os, "geteuid") else "the user of this process"


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())
