"""The files of sound in a folder, also those inside the archives that lie in it."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from training.corpora.carving import carve
from training.corpora.sound import suffix_of

SOUND_SUFFIXES = (
    *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3"),
    *(".oga", ".ogg", ".opus", ".snd", ".voc", ".wav", ".wv"),
)
CARVED_SUFFIXES = (".cat", ".mpk", ".rcc", ".res")  # for `training.corpora.carving`
TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".h2drumkit")
MAX_BYTES = 1 << 30  # of a file of sound, or of an archive within an archive
MAX_DEPTH = 3  # archives within archives
_HEAD = 512  # bytes that tell what a file is; a tar's mark is at 257
_ZIP_MARK = b"PK\x03\x04"
_TAR_MARK = slice(257, 262)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")


class Found(NamedTuple):
    """A file that is sound, or is called as if it were, or an archive that cannot be read.

    Attributes:
        origin: its path from the folder on; archives are folders in it.
        data: its bytes; None where they cannot be had.
        error: why not.
    """

    origin: str
    data: bytes | None
    error: str = ""


def find_sound(folder: Path) -> Iterator[Found]:
    """All files of sound below `folder`, in the order of their paths; links are not followed.

    Zips, whatever they are called, tars, compressed or not, and resource files are looked into.
    """
    for path in sorted(_files(folder), key=str):
        origin = _printable(path.relative_to(folder).as_posix())
        with path.open("rb") as file:
            yield from _look_into(file, origin, path.stat().st_size, MAX_DEPTH)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _look_into(file: IO[bytes], origin: str, size: int, depth: int) -> Iterator[Found]:
    """A file of sound as it is, an archive's files, or nothing."""
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(_ZIP_MARK):
        yield from _guarded(_zip_members, file, origin, depth)
    elif _is_tar(head, origin):
        yield from _guarded(_tar_members, file, origin, depth)
    elif size > MAX_BYTES:
        if _is_of_use(head, origin):
            yield Found(origin, None, f"{size} bytes; at most {MAX_BYTES} are read")
    elif origin.lower().endswith(CARVED_SUFFIXES):
        for place, data in carve(file.read()):
            yield Found(f"{origin}/{place:010d}", data)
    elif _is_sound(head, origin):
        yield Found(origin, file.read())


_Members = Callable[[IO[bytes], str, int], Iterator[Found]]


def _guarded(members: _Members, file: IO[bytes], origin: str, depth: int) -> Iterator[Found]:
    """The members of an archive; a damaged one is told of after those that could be read."""
    if depth == 0:
        yield Found(origin, None, f"more than {MAX_DEPTH} archives within each other")
        return
    try:
        yield from members(file, origin, depth)
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError) as error:
        yield Found(origin, None, f"archive that cannot be read: {error}")
    except (EOFError, OSError) as error:
        yield Found(origin, None, f"archive that ends too soon: {error}")


def _zip_members(file: IO[bytes], origin: str, depth: int) -> Iterator[Found]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as content:
                    yield from _member(content, origin, member.filename, member.file_size, depth)


def _tar_members(file: IO[bytes], origin: str, depth: int) -> Iterator[Found]:
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                with content:
                    yield from _member(content, origin, member.name, member.size, depth)


def _member(content: IO[bytes], origin: str, name: str, size: int, depth: int) -> Iterator[Found]:
    """What a member of an archive holds; its size is checked, also against what it claims."""
    inside = f"{origin}/{_inside(name)}"
    head = content.read(_HEAD)
    if _is_of_use(head, inside):
        data = head + content.read(MAX_BYTES + 1 - len(head))
        yield from _look_into(io.BytesIO(data), inside, max(size, len(data)), depth - 1)


def _is_of_use(head: bytes, origin: str) -> bool:
    """Whether it is worth reading the whole of a member that begins like this."""
    carved = origin.lower().endswith(CARVED_SUFFIXES)
    return carved or head.startswith(_ZIP_MARK) or _is_tar(head, origin) or _is_sound(head, origin)


def _is_tar(head: bytes, origin: str) -> bool:
    is_called_so = origin.lower().endswith(TAR_SUFFIXES)
    return head[_TAR_MARK] == b"ustar" or (is_called_so and head.startswith(_COMPRESSED))


def _is_sound(head: bytes, origin: str) -> bool:
    suffix = os.path.splitext(origin)[1].lower()
    return suffix_of(head[:12]) is not None or suffix in SOUND_SUFFIXES


def _inside(name: str) -> str:
    """A member's name as a path that leads nowhere else."""
    parts = PurePosixPath(_printable(name).replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in ("/", "..", "."))


def _printable(name: str) -> str:
    """A name that is UTF-8 whatever it was."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
