"""Files behind URLs, brought onto the disk some at a time before they are asked for.

What fetching one file takes is mostly waiting; whoever decodes them one by one need not wait too.
"""

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import fsspec

from models.limits import AudioError
from service.commands.remote_paths import is_url

AHEAD = 4  # files that are on the disk, or on their way, behind the one that is asked for


class Fetcher:
    """Gives files of a list, in its order, as paths."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetching")
        self._next: deque[str] = deque()
        self._coming: dict[str, Future[str]] = {}

    def expect(self, files: Iterable[str]) -> None:
        """Say which files are asked for next, in this order; earlier expectations are dropped."""
        self._forget()
        self._next = deque(file for file in files if is_url(file))

    @contextmanager
    def on_disk(self, source: str) -> Iterator[str]:
        """The path of a file; what is behind a URL is there while the block runs.

        Raises:
            AudioError: it cannot be fetched.
        """
        if not is_url(source):
            yield source
            return
        coming = self._coming.pop(source, None) or self._pool.submit(_fetched, source)
        if source in self._next:  # else it is one that nobody has told of
            while self._next and self._next.popleft() != source:
                continue
        self._fetch_ahead()
        path = coming.result()
        try:
            yield path
        finally:
            os.unlink(path)

    def close(self) -> None:
        """Fetch nothing more, and remove what was not asked for."""
        self._forget()
        self._pool.shutdown()

    def _fetch_ahead(self) -> None:
        for url in list(self._next)[: AHEAD - 1]:
            if url not in self._coming:
                self._coming[url] = self._pool.submit(_fetched, url)

    def _forget(self) -> None:
        self._next.clear()
        for coming in self._coming.values():
            if not coming.cancel():
                with suppress(AudioError, OSError):
                    os.unlink(coming.result())
        self._coming.clear()


def _fetched(url: str) -> str:
    """A temporary file with what is behind a URL; its path."""
    handle, path = tempfile.mkstemp(prefix="viola-")
    try:
        with os.fdopen(handle, "wb") as copy, fsspec.open(url, "rb") as remote:
            shutil.copyfileobj(remote, copy)
    except Exception as error:  # each kind of storage has errors of its own
        os.unlink(path)
        reason = str(error) or type(error).__name__
        raise AudioError("unreadable", f"the file cannot be fetched: {reason}") from error
    return path
