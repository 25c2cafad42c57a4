"""Folders and tars -> the audio files in them, in an order that depends on their names alone."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".webm"})

Member = tuple[str, int, int]
"""Name inside the source; of a tar's member its offset and size in bytes, else 0 and -1."""


class SourceError(ValueError):
    """A folder or tar that cannot be listed."""


class Item(NamedTuple):
    """An audio file, or a member of a tar.

    Attributes:
        source: name of the folder or tar.
        name: path inside.
        path: the file or tar to open.
        offset: bytes; where the member begins.
        size: bytes of the member; -1 for a file of its own.
    """

    source: str
    name: str
    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The file's bytes."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def source_name(path: Path) -> str:
    """The name of a folder, or of a tar without `.tar`."""
    return path.resolve().name if path.is_dir() else path.name.removesuffix(".tar")


def members(path: Path) -> Iterator[Member]:
    """The audio files, by their suffix, of a folder (recursively) or of an uncompressed tar.

    The files of a folder are in the order of their paths, those of a tar in the order they have in
    it. Links to files are followed, links to folders are not.

    Raises:
        SourceError: it cannot be listed.
    """
    return _walk(path, "") if path.is_dir() else _tar_members(path)


def items(path: Path) -> list[Item]:
    """`members` as things to open, for sources whose list fits into memory.

    Raises:
        SourceError: it cannot be listed, or holds no audio.
    """
    source = source_name(path)
    found = [
        Item(source, name, str(path / name if size < 0 else path), offset, size)
        for name, offset, size in members(path)
    ]
    if not found:
        raise SourceError(no_audio(path))
    return found


def no_audio(path: Path) -> str:
    """Why a source without audio files is refused."""
    return f"{path} holds no files of {', '.join(sorted(SUFFIXES))}"


def _walk(folder: Path, prefix: str) -> Iterator[Member]:
    """The audio files below `folder`, sorted by their whole path, a folder at a time in memory."""
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    names.append(entry.name + "/")  # sorts as in the paths of its files
                elif _is_audio(entry.name) and entry.is_file():
                    names.append(entry.name)
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error
    for name in sorted(names):
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name)
        else:
            yield prefix + name, 0, -1


def _tar_members(path: Path) -> Iterator[Member]:
    if not path.is_file():
        raise SourceError(f"{path} is neither a folder nor a file")
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it would keep them all: 2 KB each
                if member.isreg() and not member.issparse() and _is_audio(member.name):
                    yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise SourceError(
            f"{path} is not an uncompressed tar: members are read by their offset; unpack it and "
            "name the folder, or decompress it (gunzip, unxz, zstd -d)"
        ) from error


def _is_audio(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
