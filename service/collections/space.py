"""Gives the space of deleted rows back to the disk, and takes their content out of SQLite's log.

SQLite overwrites deleted rows in its file. Two things stay. The write-ahead log (WAL) holds pages
as they were until it is emptied, which is possible only while nobody reads an older state. And free
pages stay in the file until they are moved to its end and cut off. Neither may keep writers
waiting: the log is emptied only if that takes no waiting, and pages are cut off some at a time, in
a thread.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Event, Lock, Thread
from typing import Any

import structlog

from service.collections.records import StoreError

PAGES = 256  # cut off at a time; others may write between
PAUSE_S = 0.02  # between two times
READERS_S = 0.5  # until it is looked again whether an older state is still read
CLOSE_S = 5.0

log = structlog.get_logger()


class Space:
    """The free pages and the log of one SQLite file.

    Args:
        connected: gives a connection of `sqlite3` outside any transaction.
    """

    def __init__(self, connected: Callable[[], AbstractContextManager[Any]]) -> None:
        self._connected = connected
        self._lock = Lock()  # of the next two
        self._work: Thread | None = None
        self._is_asked_again = False
        self._closing = Event()

    def empty_log(self) -> bool:
        """Empty the log if nobody reads an older state; whether no space is left to give back."""
        try:
            with self._connected() as raw:
                return _is_log_emptied(raw) and not _n_free(raw)
        except StoreError as error:  # the rows are gone all the same
            log.warning("space not given back", reason=str(error))
            return True

    def give_back(self) -> None:
        """Empty the log if nobody reads an older state; a thread does the rest."""
        if not self.empty_log() and not self._closing.is_set():
            self._begin()

    def close(self) -> None:
        """Stop; the next start gives back the space that is left."""
        self._closing.set()
        with self._lock:
            work = self._work
        if work is not None:
            work.join(CLOSE_S)

    def _begin(self) -> None:
        with self._lock:
            self._is_asked_again = True
            if self._work is not None:
                return
            work = Thread(target=self._give_back_rest, name="space", daemon=True)
            try:
                work.start()
            except RuntimeError as error:  # no room for another thread
                log.warning("space not given back", reason=str(error))
                return
            self._work = work

    def _give_back_rest(self) -> None:
        try:
            while self._is_asked() and self._finished():
                pass
        except StoreError as error:
            log.warning("space not given back", reason=str(error))
            with self._lock:
                self._work = None

    def _is_asked(self) -> bool:
        with self._lock:
            is_asked, self._is_asked_again = self._is_asked_again, False
            if not is_asked:
                self._work = None
        return is_asked

    def _finished(self) -> bool:
        """Cut off all free pages and empty the log; False if the database is closed before."""
        pause_s = 0.0
        while not self._closing.wait(pause_s):
            with self._connected() as raw:
                n_free = _n_free(raw)
                if n_free:
                    # A script runs to its end; a statement by itself cuts off a single page
                    raw.executescript(f"PRAGMA incremental_vacuum({PAGES})")
                if _is_log_emptied(raw) and n_free <= PAGES:
                    return True
            pause_s = PAUSE_S if n_free > PAGES else READERS_S
        return False


def _n_free(raw: Any) -> int:
    return int(raw.execute("PRAGMA freelist_count").fetchone()[0])


def _is_log_emptied(raw: Any) -> bool:
    """Empty the log without waiting for anybody: who waits for readers keeps writers waiting."""
    (waited_ms,) = raw.execute("PRAGMA busy_timeout").fetchone()
    raw.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        is_busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        raw.execute(f"PRAGMA busy_timeout = {waited_ms}").fetchall()
    return not is_busy
