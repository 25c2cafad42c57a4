"""Folders and tars -> the audio files in them, in an order that depends on their names alone."""

import os
import tarfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from models.containers import SUFFIXES

MAC_FOLDER = "__MACOSX"  # what macOS adds to the zips that it makes

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


def normal(name: str) -> str:
    """A name in the form in which names are compared: macOS writes letters with accents as two."""
    return unicodedata.normalize("NFC", name)


def source_name(path: Path) -> str:
    """The name of a folder, or of a tar without `.tar`."""
    return path.resolve().name if path.is_dir() else path.name.removesuffix(".tar")


def members(path: Path) -> Iterator[Member]:
    """The audio files, by their suffix, of a folder (recursively) or of an uncompressed tar.

    The files of a folder are in the order of their paths, those of a tar in the order they have in
    it. Names with a leading dot (`.Trash-1000`, `._clip.wav`) and `__MACOSX` are left out with all
    that is below them. Links to files are followed, and links to folders that lie elsewhere, each
    such folder once: what lies inside is found under its own name. What cannot be opened (a link
    to nothing, a link in a tar) is listed too, so that it fails by its name.

    Raises:
        SourceError: it cannot be listed.
    """
    if not path.is_dir():
        return _tar_members(path)
    return _Walk(path).members(path, "")


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
    tars = path.is_dir() and any(path.glob("*.tar"))
    remedy = f"; to read its tars, name them: {path}/*.tar" if tars else ""
    return f"{path} holds no files of {', '.join(sorted(SUFFIXES))}{remedy}"


class _Walk:
    """One walk through a folder, a folder at a time in memory."""

    def __init__(self, root: Path) -> None:
        self._entered = {root.resolve()}  # the root, and what links have led to

    def members(self, folder: Path, prefix: str) -> Iterator[Member]:
        """The audio files below a folder, sorted by their whole path."""
        for name in sorted(self._names(folder)):
            if name.endswith("/"):
                yield from self.members(folder / name, prefix + name)
            else:
                yield prefix + checked_name(name, folder), 0, -1

    def _names(self, folder: Path) -> Iterator[str]:
        """Audio files, and folders to enter with a slash behind: it sorts as in their paths."""
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if is_hidden(entry.name):
                        continue
                    lost = _leads_nowhere(entry)  # of a link to itself the others are errors
                    if not lost and entry.is_dir():
                        if not entry.is_symlink() or self._leads_on(entry.path):
                            yield checked_name(entry.name, folder) + "/"
                    elif _is_audio(entry.name) and (lost or entry.is_file()):
                        yield entry.name
        except OSError as error:
            raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error

    def _leads_on(self, link: str) -> bool:
        """Whether a link leads to a folder that is not walked anyway, and does not lead back."""
        target = Path(link).resolve()
        known = self._entered
        if any(target.is_relative_to(other) or other.is_relative_to(target) for other in known):
            return False
        self._entered.add(target)
        return True


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to nothing, or to itself: a file that fails, and is not left out."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def is_hidden(name: str) -> bool:
    """Whether one part of a path is nothing that its owner put there."""
    return name.startswith(".") or name == MAC_FOLDER


def checked_name(name: str, where: Path) -> str:
    """A name that tables and stores can hold.

    Raises:
        SourceError: its bytes are not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"{where} holds a file whose name is not UTF-8: {os.fsencode(name)!r}; rename it"
        ) from None
    return name


def _tar_members(path: Path) -> Iterator[Member]:
    if not path.is_file():
        raise SourceError(f"{path} is neither a folder nor a file")
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it would keep them all: 2 KB each
                parts = [part for part in member.name.split("/") if part != "."]
                if any(map(is_hidden, parts)) or not _is_audio(member.name):
                    continue
                if not member.isdir():
                    # A link, or a file with holes, is not where it stands: it fails as an empty one
                    size = member.size if member.isreg() and not member.issparse() else 0
                    yield checked_name(member.name, path), member.offset_data, size
    except tarfile.TarError as error:
        raise SourceError(
            f"{path} is not an uncompressed tar: members are read by their offset; unpack it and "
            "name the folder, or decompress it (gunzip, unxz, zstd -d)"
        ) from error


def _is_audio(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
