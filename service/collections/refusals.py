"""What callers are told where a database refuses or fails: what they can do, in our words."""

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError

from service.collections.records import StoreBusy, StoreError, StoreFull, StoreUnavailable

WAIT_S = 20.0  # for others who write
FULL = (
    "There is no room on the disk of the collections, and nothing was changed: make some. Deleting "
    "needs some too, until it is done."
)
_FAILING = (  # SQLite's codes of failures that are not the statement's fault
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
)
# The same as classes of PostgreSQL's codes: lost connections, rights, too little memory, too few
# connections, statements ended by an administrator or a limit, I/O errors, damage
_FAILING_CLASSES = ("08", "28", "53", "57", "58", "F0", "XX")
DISK_FULL = "53100"  # or a memory that processes share
READ_ONLY = "25006"  # a standby, or a server that was set so
_FAILING_STATES = (READ_ONLY, "25P03", "25P04")  # and limits on transactions


def refusal_of(error: Exception) -> StoreError | None:
    """What callers are told of an error of a database; None where they can do nothing about it."""
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, DBAPIError):
        return _of_sqlite(error.orig or error) or _of_postgres(error)
    return _of_sqlite(error)  # past SQLAlchemy


def _of_sqlite(error: BaseException) -> StoreError | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"Others write to the collections for more than {WAIT_S:g} s.")
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_WRITE:
        return StoreFull(FULL)
    if primary in _FAILING:
        return _unavailable(f": {error}")
    return None


def _of_postgres(error: DBAPIError) -> StoreError | None:
    state: str = getattr(error.orig, "sqlstate", None) or ""
    if not state and isinstance(error, OperationalError):
        state = "08"  # no connection, and so no code
    if state in ("40001", "40P01", "55P03"):
        return StoreBusy("The database of the collections cannot do this now.")
    if state == DISK_FULL:
        return StoreFull(FULL)
    if state in _FAILING_STATES or state.startswith(_FAILING_CLASSES):
        return _unavailable()
    return None


def _unavailable(reason: str = "") -> StoreUnavailable:
    return StoreUnavailable(f"The database of the collections cannot be used now{reason}.")
