"""The audio files of folders and tars as tables: a list of millions is some 50 bytes a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from models import sources as files_of
from models.sources import Item, Member, SourceError
from training.data.corpus import CorpusError

CHUNK = 10_000  # files that are Python objects at a time
_SCHEMA = pa.schema([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])


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
    """List the audio files of folders and tars, as `models.sources.members` does.

    Raises:
        CorpusError: for a source that cannot be listed or has no audio, and for two of one name.
    """
    sources: list[Source] = []
    for path in paths:
        name = files_of.source_name(path)
        if name in [source.name for source in sources]:
            raise CorpusError(f"two sources are called {name!r}; rename one of them")
        try:
            files = _table(path, files_of.members(path))
        except SourceError as error:
            raise CorpusError(str(error)) from error
        if not files.num_rows:
            raise CorpusError(files_of.no_audio(path))
        sources.append(Source(name, path, files))
    return sources


def _table(path: Path, members: Iterator[Member]) -> pa.Table:
    batches = []
    while chunk := list(islice(members, CHUNK)):
        try:
            batches.append(pa.record_batch(list(zip(*chunk, strict=True)), schema=_SCHEMA))
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{path} holds a file whose name is not UTF-8: {error.object!a}; rename it"
            ) from error
    return pa.Table.from_batches(batches, _SCHEMA)
