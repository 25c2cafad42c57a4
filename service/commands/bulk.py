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

import numpy as np
from numpy.typing import NDArray

from models import audio
from models.audio import SAMPLE_RATE, WHOLE, AudioError, Selection
from models.runtime import Encoder
from models.tiles import TILE_S
from service.commands.tables import Row

BATCH_S = 8 * TILE_S  # audio of short files that is gathered before it is embedded
STDIN = Path("-")

Warn = Callable[[str, str], None]
"""Is told the name of a file, and what was noticed about it."""


@dataclass(frozen=True)
class Failure:
    """A file that gave no vector, and why."""

    file: str
    reason: str


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


def embed_files(
    encoder: Encoder,
    files: Iterable[Path],
    *,
    window_s: float | None = None,
    hop_s: float | None = None,
    frames: bool = False,
    selection: Selection = WHOLE,
    tally: Tally | None = None,
    warn: Warn = lambda file, sentence: None,
) -> Iterator[Row | Failure]:
    """The rows of each file in the order of `files`, or its failure; the file "-" is stdin.

    Of each file the part that is selected; times count from the file's beginning. A file that
    breaks part way fails as a whole when it has one row; of timed rows, those before the break have
    been handed out by then. `tally` counts along.
    """
    tally = tally or Tally()
    source = _Files(selection, tally, warn)
    if frames:
        results = _timed(files, source, partial(_frames, encoder))
    elif window_s is not None:
        windows = partial(encoder.stream_windows, window_s=window_s, hop_s=hop_s)
        results = _timed(files, source, windows)
    else:
        results = _whole(encoder, files, source)
    for result, n_done in results:
        if result is not None:
            yield result
        tally.add(files=n_done)


TimedVectors = Callable[
    [Iterable[NDArray[np.float32]]], Iterator[tuple[float, float, NDArray[np.float32]]]
]
_Result = tuple[Row | Failure | None, int]  # a row or failure, and how many files that ended


@dataclass(frozen=True)
class _Files:
    """Files as blocks of samples: the selected part of each, counted, and what was noticed told."""

    selection: Selection
    tally: Tally
    warn: Warn

    @property
    def start_s(self) -> float:
        """Where in each file its samples begin."""
        return self.selection.start_s

    def blocks(self, file: Path) -> Iterator[NDArray[np.float32]]:
        """The samples of a file."""
        if os.path.isdir(file):  # never raises, whatever the name
            raise AudioError(
                "unreadable", "this is a folder; name the files in it, such as FOLDER/*.wav"
            )
        source = sys.stdin.buffer if file == STDIN else file
        warn = partial(self.warn, _name(file))
        for block in audio.stream(source, selection=self.selection, warn=warn):
            self.tally.add(audio_s=len(block) / SAMPLE_RATE)
            yield block


def _whole(encoder: Encoder, files: Iterable[Path], source: _Files) -> Iterator[_Result]:
    """One row a file."""
    tally, start_s = source.tally, source.start_s
    held: list[tuple[Path, NDArray[np.float32]]] = []

    def flush() -> Iterator[_Result]:
        embeddings = encoder.embed_batch([samples for _, samples in held])
        for (file, samples), embedding in zip(held, embeddings, strict=True):
            yield Row(_name(file), start_s, start_s + len(samples) / SAMPLE_RATE, embedding), 1
        held.clear()

    for file in files:
        try:
            samples, rest = _head(source.blocks(file))
            if rest is None:
                held.append((file, samples))
            else:
                yield from flush()
                before = tally.audio_s - len(samples) / SAMPLE_RATE
                embedding = encoder.embed(itertools.chain([samples], rest))
                yield Row(_name(file), start_s, start_s + tally.audio_s - before, embedding), 1
        except AudioError as error:
            yield from flush()
            yield Failure(_name(file), str(error)), 1
        if sum(len(samples) for _, samples in held) >= BATCH_S * SAMPLE_RATE:
            yield from flush()
    yield from flush()


def _timed(files: Iterable[Path], source: _Files, vectors: TimedVectors) -> Iterator[_Result]:
    """A row for each vector that `vectors` makes of a file's blocks."""
    for file in files:
        try:
            for start_s, end_s, embedding in vectors(source.blocks(file)):
                times = source.start_s + start_s, source.start_s + end_s
                yield Row(_name(file), *times, embedding), 0
        except AudioError as error:
            yield Failure(_name(file), str(error)), 0
        yield None, 1


def _frames(
    encoder: Encoder, blocks: Iterable[NDArray[np.float32]]
) -> Iterator[tuple[float, float, NDArray[np.float32]]]:
    frame_s = encoder.card.frame_hop / SAMPLE_RATE
    vectors = (frame for part in encoder.stream_frames(blocks) for frame in part)
    for index, vector in enumerate(vectors):
        yield index * frame_s, (index + 1) * frame_s, vector


def _name(file: Path) -> str:
    """A file's name as text that every format can hold, also one that is not UTF-8."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


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
