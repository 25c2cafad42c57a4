"""What lies in the folder of a store: its database, and what is derived from it or waits for it."""

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
    left = [name for name in (LOG, INDEXES, QUEUE) if _holds_something(folder / name)]
    if left and not _holds_something(file):
        state = "is empty" if file.exists() else "is missing"
        raise StoreError(
            f"the database {file} {state}, though {' and '.join(left)} beside it "
            f"{'was' if len(left) == 1 else 'were'} written with one: its content is lost, or lies "
            f"elsewhere. Put it back, as from a backup; or remove {' and '.join(left)}, to begin "
            "with no collections and no jobs"
        )


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        return any(path.iterdir())
    return path.is_file() and path.stat().st_size > 0
