"""The lists beside a corpus: what is in it (manifest.csv) and what was left out (left_out.csv)."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from models.atomic import replacing
from training.data.corpus import CorpusError


@dataclass(frozen=True)
class Clip:
    """A file of sound of the corpus.

    Attributes:
        source: the package.
        file_name: SOURCE/PATH, below the folder `sound`.
        label: the kind of sound, of `packages.KINDS`.
        group: the folder it lay in; files of one group are alike: keep them together in a split.
        licence: short names of the licences that cover it.
        duration_s: seconds.
        version: of the package.
        origin: its path in the package; archives are folders in it.
    """

    source: str
    file_name: str
    label: str
    group: str
    licence: str
    duration_s: str
    version: str
    origin: str


@dataclass(frozen=True)
class LeftOut:
    """A file that is called or looks like sound and was not taken, and why."""

    source: str
    origin: str
    reason: str


def read(path: Path) -> list[Clip]:
    """The clips of a list, none if it does not exist yet.

    Raises:
        CorpusError: the file is something else.
    """
    return [Clip(*row) for row in _rows(path, [field.name for field in fields(Clip)])]


def read_left_out(path: Path) -> list[LeftOut]:
    """The files that were left out, none if there is no list yet; raises as `read` does."""
    return [LeftOut(*row) for row in _rows(path, [field.name for field in fields(LeftOut)])]


def write(path: Path, rows: Iterable[Clip] | Iterable[LeftOut], kind: type) -> None:
    """Replace a list."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(kind)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        file.flush()


def _rows(path: Path, names: list[str]) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0] != names or any(len(row) != len(names) for row in rows):
        raise CorpusError(f"{path} does not have the columns {','.join(names)}; remove it")
    return rows[1:]
