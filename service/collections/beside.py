"""Work beside the searches: indexes that are made while others search."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Beside:
    """One piece of work at a time, in a thread of its own.

    Args:
        name: of the thread; in the plural, for the log.

    Attributes:
        is_closed: whether no more is begun.
    """

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, threading.Lock()
        self._thread: threading.Thread | None = None
        self.is_closed = False

    def begin(self, work: Callable[[], None]) -> bool:
        """Begin, unless other work is under way or this is closed; whether that was tried.

        If the system has no room for another thread, the log says so.
        """
        with self._lock:
            if self.is_closed or (self._thread is not None and self._thread.is_alive()):
                return False
            thread = threading.Thread(target=work, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("%s of a collection are not made now: %s", self._name, error)
            else:
                self._thread = thread
            return True

    def close(self) -> None:
        """Begin no more."""
        with self._lock:
            self.is_closed = True

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of what is under way, but no longer than that."""
        if self._thread is not None:
            self._thread.join(timeout_s)
