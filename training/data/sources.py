"""Folders and tars -> the audio files in them, in an order that depends on their names alone.

A list of millions of files is kept as an Arrow table, some 50 bytes a file.
"""

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from training.data.corpus import CorpusError
from training.data.decoders import Item

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".webm"})
CHUNK = 10_000  # files that are Python objects at a time
_SCHEMA = pa.schema([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
_Member = tuple[str, int, int]  # name, offset and size in bytes


@dataclass(frozen=True)
class Source:
    """A folder or a tar, and its audio files.

    Attributes:
        name: name of the folder, or of the tar without `.tar`.
        path: where it is.
        files: a row each: name, and for a member of a tar its offset and size in bytes.
    """

    name: str
    path: Path
    files: pa.Table

    @property
    def n_files(self) -> int:
        """Audio files in it."""
        return int(self.files.num_rows)

    def without(self, names: pa.ChunkedArray) -> "Source":
        """The source less the files of these names."""
        others = pc.invert(pc.is_in(self.files["name"], names))
        return replace(self, files=self.files.filter(others))

    def items(self) -> Iterator[Item]:
        """Its files, in order."""
        for batch in self.files.to_batches(CHUNK):
            for name, offset, size in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                path = self.path / name if size < 0 else self.path
                yield Item(self.name, name, str(path), offset, size)


def list_sources(paths: Sequence[Path]) -> list[Source]:
    """List the audio files, by their suffix, of folders (recursively) and uncompressed tars.

    The files of a folder are in the order of their paths, those of a tar in the order they have in
    it. Links to files are followed, links to folders are not.

    Raises:
        CorpusError: for a source that cannot be listed or has no audio, and for two of one name.
    """
    sources: list[Source] = []
    for path in paths:
        is_folder = path.is_dir()
        name = path.resolve().name if is_folder else path.name.removesuffix(".tar")
        if name in [source.name for source in sources]:
            raise CorpusError(f"two sources are called {name!r}; rename one of them")
        files = _table(path, _walk(path, "") if is_folder else _tar_members(path))
        if not files.num_rows:
            raise CorpusError(f"{path} holds no files of {', '.join(sorted(SUFFIXES))}")
        sources.append(Source(name, path, files))
    return sources


def _table(path: Path, members: Iterator[_Member]) -> pa.Table:
    batches = []
    while chunk := list(islice(members, CHUNK)):
        try:
            batches.append(pa.record_batch(list(zip(*chunk, strict=True)), schema=_SCHEMA))
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{path} holds a file whose name is not UTF-8: {error.object!a}; rename it"
            ) from error
    return pa.Table.from_batches(batches, _SCHEMA)


def _walk(folder: Path, prefix: str) -> Iterator[_Member]:
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
        raise CorpusError(f"{folder} cannot be listed: {error.strerror}") from error
    for name in sorted(names):
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name)
        else:
            yield prefix + name, 0, -1


def _tar_members(path: Path) -> Iterator[_Member]:
    if not path.is_file():
        raise CorpusError(f"{path} is neither a folder nor a file")
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it would keep them all: 2 KB each
                if member.isreg() and not member.issparse() and _is_audio(member.name):
                    yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise CorpusError(
            f"{path} is not an uncompressed tar: members are read by their offset; unpack it and "
            "name the folder, or decompress it (gunzip, unxz, zstd -d)"
        ) from error


def _is_audio(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
