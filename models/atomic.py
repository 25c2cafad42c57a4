"""Files appear whole or not at all: written under a temporary name, then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, what one may use of it, one file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, else vanishes.

    Raises:
        OSError: naming `path`, where a full disk names no file, or the temporary one is named, or
            NumPy tells nothing but how much of an array it could write.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        publish(temporary, path)
    except OSError as error:
        if type(error) is OSError and error.errno is None:
            raise OSError(f"{path} cannot be written whole: {error}") from error
        nameless = error.filename is None and error.errno in FULL
        if nameless or str(error.filename) == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, once its content has reached the disk."""
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(temporary, path)
