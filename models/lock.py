"""One process at a time writes to a folder."""

import errno
import fcntl
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
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise otherwise from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
        yield
