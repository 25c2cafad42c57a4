"""Parts of a store, prepared side by side by processes or machines that know nothing of each other.

The files of all sources, in their order, are cut into so many runs of files. Each is prepared into
a store of its own, inside the store that they are to become (`training.data.merge`):

    STORE/parts/3-of-8/            shards, lists and lock, as in any store
                      part.json    which files these are, and what the part holds once it is done
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from models.atomic import replacing
from training.data.corpus import (
    PARTS_NAME,
    CorpusError,
    index_paths,
    read_index,
    refuse_merging,
    text_columns,
)
from training.data.sources import Source

NOTE_NAME = "part.json"
_FOLDER = re.compile(r"([1-9]\d*)-of-([1-9]\d*)")
AGAIN = "`viola prepare SOURCE... STORE --part {}`"


@dataclass(frozen=True)
class Note:
    """What a part is of.

    Attributes:
        listing: hex digest of the names of all files of all sources, of every part.
        files: how many there are.
        clips: clips of the part; None until it is done.
    """

    listing: str
    files: int
    clips: int | None = None


@dataclass(frozen=True)
class Part:
    """One of `of` parts; the first is number 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a part written as `3/8`.

        Raises:
            CorpusError: it is written otherwise, or there is no such part.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            message = f"--part {text}: expected K/N with K from 1 to N, the third of eight is 3/8"
            raise CorpusError(message)
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder_name(self) -> str:
        """The name of the folder that its store is in."""
        return f"{self.number}-of-{self.of}"

    def folder(self, store: Path) -> Path:
        """The folder of its store."""
        return store / PARTS_NAME / self.folder_name

    def of_files(self, sources: Sequence[Source]) -> list[Source]:
        """Its files: of those of all sources in a row, a run that is as long as any other's."""
        total = sum(source.n_files for source in sources)
        first, end = (total * k // self.of for k in (self.number - 1, self.number))
        mine, before = [], 0
        for source in sources:
            start, stop = max(first - before, 0), min(end - before, source.n_files)
            if start < stop:
                mine.append(replace(source, files=source.files.slice(start, stop - start)))
            before += source.n_files
        return mine

    def begin(self, store: Path, sources: Sequence[Source]) -> None:
        """Note which files the part is of; they stay the same for as long as it is there.

        Raises:
            CorpusError: it was begun with others.
        """
        folder = self.folder(store)
        folder.mkdir(parents=True, exist_ok=True)
        noted = read_note(folder)
        note = Note(_listing(sources), sum(source.n_files for source in sources))
        if noted is None:
            _write(folder, note)
        elif noted.listing != note.listing:
            raise CorpusError(
                f"{folder} was begun with another list of {noted.files} files, not these "
                f"{note.files}: name the same sources in the same order, unchanged, or remove "
                f"{folder.parent} and prepare every part again"
            )

    def finish(self, store: Path) -> None:
        """Note that all its files have been done, and what the part holds."""
        folder = self.folder(store)
        noted = read_note(folder)
        if noted is None:
            raise CorpusError(f"{folder / NOTE_NAME} has vanished; {remedy(self)}")
        _write(folder, replace(noted, clips=n_clips(folder)))


def refuse_parts(store: Path) -> None:
    """Refuse a store that has parts, where it is to be written to as a whole.

    Raises:
        CorpusError: there are some.
    """
    refuse_merging(store)
    if (store / PARTS_NAME).exists():
        raise CorpusError(
            f"{store} has parts that are not merged yet: `viola prepare --merge {store}` merges "
            f"them; remove {store / PARTS_NAME} to do without"
        )


def find_parts(folder: Path) -> list[Part]:
    """The parts in `STORE/parts`, in order, all of them there and done.

    Raises:
        CorpusError: one is missing or not done, or they are not of one store.
    """
    matches = [_FOLDER.fullmatch(path.name) for path in folder.iterdir() if path.is_dir()]
    parts = sorted((Part(int(m[1]), int(m[2])) for m in matches if m), key=lambda p: p.number)
    if not parts:
        raise CorpusError(f"{folder} holds no parts; {AGAIN.format('K/N')} makes one")
    counts = sorted({part.of for part in parts})
    if len(counts) > 1:
        found = ", ".join(part.folder_name for part in parts)
        raise CorpusError(
            f"{folder} holds parts of {' and of '.join(map(str, counts))}: {found}; remove those "
            "that are not meant"
        )
    missing = sorted(set(range(1, counts[0] + 1)) - {part.number for part in parts})
    if missing:
        names = ", ".join(f"{number}/{counts[0]}" for number in missing)
        raise CorpusError(f"{folder} lacks the parts {names}; {AGAIN.format('K/N')} makes each")
    _check_notes(folder, parts)
    return parts


def read_note(folder: Path) -> Note | None:
    """What the part in `folder` is of; None where there is no note.

    Raises:
        CorpusError: it cannot be read.
    """
    path = folder / NOTE_NAME
    if not path.exists():
        return None
    try:
        return Note(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CorpusError(f"{path} cannot be read; remove {folder} and prepare it again") from error


def n_clips(folder: Path) -> int:
    """Clips in the shards of a part."""
    return sum(read_index(path, ["length"]).num_rows for path in index_paths(folder))


def remedy(part: Part) -> str:
    """How a part is made again."""
    return f"remove the folder {part.folder_name} and run {AGAIN.format(part)} again"


def _check_notes(folder: Path, parts: Sequence[Part]) -> None:
    listings: dict[str, list[Part]] = {}
    for part in parts:
        note = read_note(folder / part.folder_name)
        if note is None or note.clips is None:
            raise CorpusError(f"part {part} is not done; {AGAIN.format(part)} goes on with it")
        listings.setdefault(note.listing, []).append(part)
    if len(listings) > 1:
        few = min(listings.values(), key=len)
        names = ", ".join(map(str, few))
        raise CorpusError(
            f"{folder} holds parts of different lists of files: {names} are of another one than "
            f"the rest; remove those and run {AGAIN.format('K/N')} again with the same sources"
        )


def _listing(sources: Sequence[Source]) -> str:
    """A digest of the names of the sources and their files, in order."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(json.dumps([source.name, source.n_files]).encode())
        for column in text_columns(source.files["name"]):
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def _write(folder: Path, note: Note) -> None:
    with replacing(folder / NOTE_NAME) as temporary:
        temporary.write_text(json.dumps(asdict(note)))
