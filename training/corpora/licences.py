"""A package's copyright file -> the short names of the licences that cover a file of it.

The format is Debian's machine-readable one (DEP-5). Its patterns are paths in the *source* of the
package, while what is at hand are paths in the package: a pattern counts for a file where the two
agree from some folder on, and the pattern whose agreement is longest wins.
"""

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple, cast

from debian.copyright import (
    Copyright,
    License,
    MachineReadableFormatError,
    NotMachineReadableError,
)

OTHER = "other"  # a licence without a short name

# It would tell of each file that spells the format's own address in an older way.
logging.getLogger("debian.copyright").setLevel(logging.ERROR)


class _Pattern(NamedTuple):
    parts: tuple[str, ...]
    licence: str
    number: int  # later paragraphs override earlier ones


class Licences:
    """The licences of one package.

    Attributes:
        of_package: all that the copyright file names, but for those of the packaging (`debian/*`);
            joined with "; ". What is told apart by no pattern has these.
    """

    def __init__(self, copyright_file: Path, otherwise: str) -> None:
        """Read a copyright file; `otherwise` is taken where no machine can read it."""
        self._patterns: list[_Pattern] = []
        self.of_package = otherwise or OTHER
        stanzas = _stanzas(copyright_file)
        names = [name for patterns, name in stanzas if any(map(_is_upstream, patterns))]
        if not otherwise and names:
            self.of_package = "; ".join(dict.fromkeys(names))
        numbers = count()
        for patterns, name in stanzas:
            number = next(numbers)
            self._patterns += [_Pattern(tuple(p.split("/")), name, number) for p in patterns]

    def of(self, origin: str) -> str:
        """The licence of a file of the package, by its path there."""
        parts = tuple(origin.split("/"))
        best, licence = (0, 0), self.of_package
        for pattern in self._patterns:
            rank = (_agreement(pattern.parts, parts), pattern.number)
            if rank[0] and rank > best:
                best, licence = rank, pattern.licence
        return licence


def _stanzas(path: Path) -> list[tuple[list[str], str]]:
    """The patterns and the licence of each paragraph about files; none where it is free text."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = list(Copyright(file, strict=False).all_files_paragraphs())
            licences = [cast("License | None", stanza.license) for stanza in found]
            return [
                (list(cast("Iterable[str]", stanza.files)), _short(licence.synopsis))
                for stanza, licence in zip(found, licences, strict=True)
                if licence is not None
            ]
    except (MachineReadableFormatError, NotMachineReadableError, ValueError, OSError):
        return []


def _short(synopsis: str) -> str:
    """The short name on one line; a licence that has none is read in the copyright file."""
    return " ".join(synopsis.split()) or OTHER


def _is_upstream(pattern: str) -> bool:
    return not pattern.startswith("debian/")


def _agreement(pattern: tuple[str, ...], path: tuple[str, ...]) -> int:
    """How many folders and names of a path in the package a pattern of the source agrees with.

    Both may lack the other's first folders. Wildcards alone tell nothing: 0.
    """
    for first in range(len(pattern)):
        rest = pattern[first:]
        literal = sum(part.strip("*?.") != "" for part in rest)
        if _is_bare(rest) or not literal:
            continue
        match = _compiled("/".join(rest))
        if any(match.fullmatch("/".join(path[start:])) for start in range(len(path))):
            return literal
    return 0


def _is_bare(rest: tuple[str, ...]) -> bool:
    """`*.ogg` of `data/music/*.ogg` would agree with too much, once its folders are gone."""
    return len(rest) == 1 and "*" in rest[0]


@lru_cache(maxsize=10_000)
def _compiled(pattern: str) -> re.Pattern[str]:
    """DEP-5: `*` is any text, slashes too, `?` a character."""
    escaped = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(escaped, re.DOTALL)
