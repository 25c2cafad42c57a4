"""Storage behind URLs, as fsspec knows it: what lies below a folder, manifests, outputs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.containers import SUFFIXES
from models.sources import SourceError, is_hidden

MANIFEST_SUFFIX = ".parquet"


def is_url(name: str) -> bool:
    """Whether it is no path of this machine."""
    return "://" in name


def audio_below(url: str) -> Iterator[str]:
    """The URL itself where it names a file, else those of all audio files below it, sorted.

    A folder ends with a slash, or has no suffix and is one. All its names are in memory at once.

    Raises:
        SourceError: a folder cannot be listed, or holds no audio.
    """
    last = url.rstrip("/").rpartition("/")[2].partition("?")[0]
    if not url.endswith("/") and os.path.splitext(last)[1]:
        yield url
        return
    try:
        files, path = _storage(url)
        if not url.endswith("/") and not files.isdir(path):
            yield url
            return
        found = sorted(files.find(path))
    except Exception as error:  # each kind of storage has errors of its own
        raise SourceError(f"{url} cannot be listed: {_reason(error)}") from error
    below = [name for name in found if _is_audio(name.removeprefix(path))]
    if not below:
        raise SourceError(f"{url} holds no files of {', '.join(sorted(SUFFIXES))}")
    yield from map(files.unstrip_protocol, below)


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """The file behind a URL, open for reading.

    Raises:
        SourceError: there is none, or it cannot be read.
    """
    try:
        files, path = _storage(url)
        file = files.open(path, "rb")
    except Exception as error:
        raise SourceError(f"{url} cannot be read: {_reason(error)}") from error
    with file:
        yield file


def exists(url: str) -> bool:
    """Whether there is something behind a URL.

    Raises:
        OSError: its storage cannot be asked.
    """
    try:
        files, path = _storage(url)
        return bool(files.exists(path))
    except Exception as error:
        raise OSError(f"{url} cannot be asked for: {_reason(error)}") from error


def upload(file: Path, url: str) -> None:
    """Put a finished file behind a URL; object stores show it when all of it is there.

    Raises:
        OSError: it cannot be written.
    """
    try:
        files, path = _storage(url)
        files.put_file(str(file), path)
        n_bytes = files.size(path)
    except Exception as error:
        raise OSError(f"{url} cannot be written: {_reason(error)}") from error
    if n_bytes != file.stat().st_size:
        raise OSError(f"{url} holds {n_bytes} bytes, expected {file.stat().st_size}")


def _storage(url: str) -> tuple[Any, str]:
    import fsspec

    files, path = fsspec.core.url_to_fs(url)
    return files, path


def _is_audio(name: str) -> bool:
    hidden = any(is_hidden(part) for part in name.split("/") if part)
    return not hidden and os.path.splitext(name)[1].lower() in SUFFIXES


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
