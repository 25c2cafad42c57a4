"""The list of packages (packages.csv) and what kind of sound is where in them (paths.csv).

Collections from elsewhere, whose clips have labels instead of paths, are in collections.csv.
"""

import csv
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

UNKNOWN = "unknown"
KINDS = (
    "speech",
    "singing",
    "music",
    "notes",
    "drums",
    "effects",
    "ambience",
    "key strokes",
    UNKNOWN,
)
LONGEST_EFFECT_S = 15.0


@dataclass(frozen=True)
class Package:
    """A package of Debian's that holds sound.

    Attributes:
        name: what apt calls it.
        kind: of its files, where no line of paths.csv says better.
        licence: short names, by hand, where its copyright file is not machine-readable; else empty.
    """

    name: str
    kind: str = UNKNOWN
    licence: str = ""


@cache
def listed() -> dict[str, Package]:
    """The packages of the list, by name."""
    rows = [Package(row["package"], row["kind"], row["licence"]) for row in _rows("packages.csv")]
    return {package.name: package for package in rows}


def kind_of(package: Package, origin: str, duration_s: float) -> str:
    """The kind of a file, by the first pattern that its path agrees with, upper or lower case.

    A package of one kind is that kind throughout, unless a line names the package. What is said to
    be an effect by its package alone is unknown where it is long: music and ambience often lie
    among effects.
    """
    path = origin.lower()
    for names, pattern, kind in _paths():
        is_general = names == "*"
        if is_general and package.kind not in (UNKNOWN, "effects"):
            continue
        if fnmatchcase(package.name, names) and fnmatchcase(path, pattern):
            return kind
    is_doubtful = package.kind == "effects" and duration_s > LONGEST_EFFECT_S
    return UNKNOWN if is_doubtful else package.kind


@cache
def _paths() -> tuple[tuple[str, str, str], ...]:
    rows = [*_rows("collections.csv"), *_rows("paths.csv")]
    return tuple(
        (row.get("collection") or row["package"], row["pattern"], row["kind"]) for row in rows
    )


def _rows(name: str) -> list[dict[str, str]]:
    text = (files("training.corpora") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
