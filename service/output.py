"""What an output format is: how vectors leave the service. Letters: `D` embedding dim."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.card import Card
from service.clips import Embedded

Vector = NDArray[np.float32]
Piece = bytes | memoryview
"""Some bytes of an answer, which is written as the client takes it."""


@dataclass(frozen=True)
class Encoding:
    """A format of one vector, which is a member of a JSON document.

    Attributes:
        name: what requests call it.
        about: what it is, for the documentation of the parameter.
        write: makes of a vector (D,) what the document holds.
        largest: no value beyond it, nor below its negative, can be written; None: all can.
    """

    name: str
    about: str
    write: Callable[[Vector], Vector | str]
    largest: float | None = None


@dataclass(frozen=True)
class Written:
    """The bytes of a table, piece by piece, and what its headers say of it alone."""

    pieces: Iterator[Piece]
    headers: Mapping[str, str] = field(default_factory=dict)
    n_bytes: int | None = None


@dataclass(frozen=True)
class Table:
    """A format of a whole answer: one table or array, without room for files that failed.

    Attributes:
        name: what requests call it.
        about: what it is, for the documentation of the parameter.
        media_type: of the answer, and what `Accept` asks for it by.
        write: the answer for files that all worked; the names of the files come beside them.
        takes_windows_of_many: whether one table holds the windows of several files.
    """

    name: str
    about: str
    media_type: str
    write: Callable[[Card, Sequence[str | None], Sequence[Embedded]], Written]
    takes_windows_of_many: bool = True
