"""Embeds many files in a row: short ones in batches, long ones as a stream, broken ones reported.

Letters: `S` samples, `D` embedding dim.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import audio
from models.audio import SAMPLE_RATE
from models.audio import Warn as WarnOfOne
from models.inputs import Counted
from models.limits import AudioError
from models.runtime import Encoder
from models.selection import WHOLE, Selection
from models.sources import Item, items
from models.tiles import TILE_S
from service.commands.tables import Row

BATCH_S = 8 * TILE_S  # audio of short files that is gathered before it is embedded
STDIN = Path("-")

Given = Path | str | Item
"""A file to embed: its path, a URL where `decode` knows it, or a member of a tar."""

Warn = Callable[[str, str], None]
"""Is told the name of a file, and what was noticed about it."""

Decode = Callable[[Given, Selection, WarnOfOne], Iterable[NDArray[np.float32]]]
"""A file, the part of it that is selected, and who is told what is noticed -> blocks (S,)."""


@dataclass(frozen=True)
class Failure:
    """A file that gave no vector, and why."""

    file: str
    reason: str
    number: int = 0  # of the file among those that were given


@dataclass
class Tally:
    """What has been done so far; `changed` is told of every block of audio and every file."""

    changed: Callable[["Tally"], None] = lambda tally: None
    files: int = 0
    audio_s: float = 0.0

    def add(self, files: int = 0, audio_s: float = 0.0) -> None:
        """Count."""
        self.files += files
        self.audio_s += audio_s
        self.changed(self)


def audio_files(paths: Iterable[Path]) -> list[Given]:
    """The files to embed: folders and tars are replaced by the audio files in them.

    Raises:
        SourceError: one of them cannot be listed, or holds no audio.
    """
    found: list[Given] = []
    for path in paths:
        if os.path.isdir(path) or path.suffix == ".tar":  # `is_dir` raises for some names
            found += [Path(item.path) if item.size < 0 else item for item in items(path)]
        else:
            found.append(path)
    return found


def decode_here(
    file: Given, selection: Selection, warn: WarnOfOne
) -> Iterator[NDArray[np.float32]]:
    """Decode a file, a member of a tar, or stdin, in this process."""
    source: Any = file
    if isinstance(file, Item):
        try:
            source = file.read()
        except OSError as error:
            raise AudioError("unreadable", error.strerror or str(error)) from error
    source = sys.stdin.buffer if source == STDIN else source
    return audio.stream(source, selection=selection, warn=warn)


def embed_files(
    encoder: Encoder,
    files: Iterable[Given],
    *,
    window_s: float | None = None,
    hop_s: float | None = None,
    frames: bool = False,
    selection: Selection = WHOLE,
    tally: Tally | None = None,
    warn: Warn = lambda file, sentence: None,
    decode: Decode = decode_here,
) -> Iterator[Row | Failure]:
    """The rows of each file in the order of `files`, or its failure; the file "-" is stdin.

    Of each file the part that is selected; times count from the file's beginning. A file that
    breaks part way fails as a whole when it has one row; of timed rows, those before the break have
    been handed out by then. `tally` counts along.
    """
    tally = tally or Tally()
    source = _Files(selection, tally, warn, decode)
    only: Only
    vectors: TimedVectors
    if frames:
        only, vectors = (lambda n_samples: None), partial(_frames, encoder)
    elif window_s is not None:
        only = partial(encoder.only_window, window_s=window_s, hop_s=hop_s)
        vectors = partial(encoder.stream_windows, window_s=window_s, hop_s=hop_s)
    else:
        only, vectors = (lambda n_samples: (0.0, n_samples / SAMPLE_RATE)), partial(_whole, encoder)
    for result, n_done in _embedded(encoder, files, source, only, vectors):
        if result is not None:
            yield result
        tally.add(files=n_done)


Only = Callable[[int], tuple[float, float] | None]
"""Samples of a short file -> start and end of its row in seconds, if it has that one alone."""
TimedVectors = Callable[
    [Iterable[NDArray[np.float32]]], Iterator[tuple[float, float, NDArray[np.float32]]]
]
_Result = tuple[Row | Failure | None, int]  # a row or failure, and how many files that ended


@dataclass(frozen=True)
class _Files:
    """Decodes the selected part of files, counts their audio, and passes on what is noticed."""

    selection: Selection
    tally: Tally
    warn: Warn
    decode: Decode

    @property
    def start_s(self) -> float:
        """Where in each file its samples begin."""
        return self.selection.start_s

    def blocks(self, file: Given) -> Iterator[NDArray[np.float32]]:
        """The samples of a file."""
        warn = partial(self.warn, name_of(file))
        for block in self.decode(file, self.selection, warn):
            self.tally.add(audio_s=len(block) / SAMPLE_RATE)
            yield block


def _embedded(
    encoder: Encoder, files: Iterable[Given], source: _Files, only: Only, vectors: TimedVectors
) -> Iterator[_Result]:
    """Rows of files: of short ones with one row, many at a time; else as `vectors` makes them."""
    held: list[tuple[int, str, tuple[float, float], NDArray[np.float32]]] = []

    def row(
        number: int, name: str, start_s: float, end_s: float, embedding: NDArray[np.float32]
    ) -> Row:
        return Row(name, source.start_s + start_s, source.start_s + end_s, embedding, number)

    def flush() -> Iterator[_Result]:
        embeddings = encoder.embed_batch([samples for *_, samples in held])
        for (number, name, times, _), embedding in zip(held, embeddings, strict=True):
            yield row(number, name, *times, embedding), 1
        held.clear()

    for number, file in enumerate(files):
        name = name_of(file)
        try:
            samples, rest = _head(source.blocks(file))
            times = only(len(samples)) if rest is None else None
            if times is not None:
                held.append((number, name, times, samples))
            else:
                yield from flush()
                for timed in vectors(itertools.chain([samples], rest or ())):
                    yield row(number, name, *timed), 0
                yield None, 1
        except AudioError as error:
            yield from flush()
            yield Failure(name, str(error), number), 1
        if sum(len(samples) for *_, samples in held) >= BATCH_S * SAMPLE_RATE:
            yield from flush()
    yield from flush()


def _whole(
    encoder: Encoder, blocks: Iterable[NDArray[np.float32]]
) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
    """One vector of a recording of any length."""
    counted = Counted(blocks)
    embedding = encoder.embed(counted)
    yield 0.0, counted.n_samples / SAMPLE_RATE, embedding


def _frames(
    encoder: Encoder, blocks: Iterable[NDArray[np.float32]]
) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
    """The features of each frame, and the time around its middle that no other is nearer to."""
    card, counted = encoder.card, Counted(blocks)
    vectors = (frame for part in encoder.stream_frames(counted) for frame in part)
    for index, vector in enumerate(vectors):
        middle = index * card.frame_hop + card.frame_offset + card.receptive_field / 2
        start = max(0.0, middle - card.frame_hop / 2)
        end = min(counted.n_samples, middle + card.frame_hop / 2)
        yield start / SAMPLE_RATE, end / SAMPLE_RATE, vector[: card.frame_features]


def name_of(file: Given) -> str:
    """A file's name as text that every format can hold, also one that is not UTF-8."""
    path = Path(file.path, file.name) if isinstance(file, Item) else file
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _head(
    blocks: Iterator[NDArray[np.float32]],
) -> tuple[NDArray[np.float32], Iterator[NDArray[np.float32]] | None]:
    """The whole of a short recording and None, or the head of a long one and what follows."""
    held: list[NDArray[np.float32]] = []
    n_samples = 0
    for block in blocks:
        held.append(block)
        n_samples += len(block)
        if n_samples > TILE_S * SAMPLE_RATE:
            return np.concatenate(held), blocks
    return np.concatenate(held), None
