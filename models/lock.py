"""One process at a time writes to a folder."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a network file system without locks answers: nothing can be told there."""


@contextmanager
def locked(path: Path, otherwise: Exception) -> Iterator[None]:
    """Hold the lock file `path`, made if missing; it is let go of however the process ends.

    Raises:
        otherwise: another process holds it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # nothing is ever written to it
    try:
        _hold(file, otherwise)
        yield
    finally:
        os.close(file)


def _hold(file: int, otherwise: Exception) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise otherwise from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
