"""Audio files or bytes -> mono float32 at 16 kHz, in blocks, refusing what is hostile or broken.

`models.containers` reads the file, `models.selection` takes the part that is meant within the
`models.limits`, and resampling is here.

Shapes: S samples at 16 kHz.
"""

import io
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

from models.containers import open_sounds
from models.formats.file import File
from models.formats.sound import ContainerError, Sound
from models.limits import AudioError, Limits
from models.quality import Meter
from models.selection import WHOLE, Selection, Selector

SAMPLE_RATE = 16_000
_HELD_BYTES = 64 << 20  # of a pipe, beyond which its content goes to the disk

AudioFile = str | Path | bytes | BinaryIO
"""A path, the bytes of a file, or a file that is open for reading: a pipe is read to its end."""
Warn = Callable[[str], None]
"""Is told, in a sentence, what is no error and yet makes the samples worth less."""


class AudioWarning(UserWarning):
    """Something about a recording that makes its samples worth less."""


@dataclass(frozen=True)
class Header:
    """What a file claims to be; nothing of its stream was decoded.

    Attributes:
        sample_rate: of the first recording, if the file holds several in a row.
        channels: likewise.
        duration_s: None where the headers do not say, or cannot be relied upon.
        warnings: what was noticed and is no error.
        error: what the headers alone are refused for.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float | None
    error: AudioError | None
    warnings: list[str]


def warn_in_python(sentence: str) -> None:
    """Tell by Python's own warnings."""
    warnings.warn(sentence, AudioWarning, stacklevel=3)


def stream(
    source: AudioFile,
    limits: Limits = Limits(),
    meter: Meter | None = None,
    selection: Selection = WHOLE,
    warn: Warn = warn_in_python,
) -> Iterator[NDArray[np.float32]]:
    """Decode `source` in blocks of 16 kHz mono; memory does not grow with the recording.

    Every block is non-empty and contiguous. Channels are averaged unless one is selected; soxr (HQ)
    resamples. Values beyond full scale stay as they are. Files that were joined are read to the
    end, whatever the rates and channels of their parts.

    A file that breaks part way raises after the blocks that came before; what lies behind the
    selection is not looked at. `docs/formats.md` lists what cannot be detected.

    Args:
        source: what to decode.
        limits: what to refuse.
        meter: measures the quality of what is decoded, before it is mixed down and resampled.
        selection: the part and the channel that are meant.
        warn: is told what was noticed.

    Raises:
        AudioError: for anything that is wrong with the source.
    """
    with _opened(source) as file:
        selector = Selector(limits, meter, selection)
        n_samples = 0
        for sound in open_sounds(file):
            if selector.is_done:
                break
            selector.check(sound)
            for block in _at_16_khz(selector.mono(sound), sound.rate):
                if len(block):
                    n_samples += len(block)
                    yield block
        if not n_samples:
            raise selector.nothing()
        for sentence in (*file.warnings, *selector.mixdown.warnings):
            warn(sentence)


def decode(
    source: AudioFile,
    limits: Limits = Limits(),
    selection: Selection = WHOLE,
    warn: Warn = warn_in_python,
) -> NDArray[np.float32]:
    """Decode `source` as a whole: -> (S,). See `stream`."""
    return np.concatenate(list(stream(source, limits, None, selection, warn)))


def read_header(
    source: AudioFile, limits: Limits = Limits(), selection: Selection = WHOLE
) -> Header:
    """What `source` claims to be, and what its headers alone would be refused for.

    The duration, and what it is refused for, are those of the selection.

    Raises:
        AudioError: there are no headers that can be read.
    """
    with _opened(source) as file:
        sounds = list(open_sounds(file))
    first, is_known = sounds[0], all(sound.frames is not None for sound in sounds)
    selector = Selector(limits, None, selection)
    error = _header_error(sounds, selector, is_known=is_known)
    return Header(
        container=first.container,
        codec=first.codec,
        sample_rate=first.rate,
        channels=first.channels,
        duration_s=selector.seconds if is_known else None,
        error=error,
        warnings=file.warnings,
    )


def _header_error(sounds: list[Sound], selector: Selector, *, is_known: bool) -> AudioError | None:
    error = None
    for sound in sounds:
        try:
            selector.claim(sound)
        except AudioError as found:
            error = error or found
    if error is not None:
        return error
    if any(sound.is_cut for sound in sounds):
        message = "the file ends before what its headers promise; copy or encode the file again"
        return AudioError("truncated", message)
    return selector.nothing() if is_known and not selector.seconds else None


@contextmanager
def _opened(source: AudioFile) -> Iterator[File]:
    """The source as a file; what is wrong with it, now or while it is read, is an AudioError."""
    try:
        with ExitStack() as stack:
            yield File(_open(source, stack))
    except ContainerError as error:
        raise AudioError(*error.args) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AudioError("unreadable", f"the file cannot be read: {reason}") from error


def _open(source: AudioFile, stack: ExitStack) -> BinaryIO:
    """A file that can be read anywhere: what comes through a pipe is kept until it has ended."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, io.TextIOBase):
        message = "the file is open for reading text; open it with mode 'rb'"
        raise AudioError("unreadable", message)
    if "\0" in str(source):
        raise AudioError("unreadable", "the file cannot be read: its name holds NUL")
    if isinstance(source, str | Path):
        source = Path(source).open("rb")  # noqa: SIM115
        stack.enter_context(source)
    if source.seekable():
        return source
    held = tempfile.SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115
    stack.enter_context(held)
    shutil.copyfileobj(source, held)
    return held  # type: ignore[return-value]


def _at_16_khz(blocks: Iterator[NDArray[np.float32]], rate: int) -> Iterator[NDArray[np.float32]]:
    resampler = Resampler(rate)
    for block in blocks:
        yield resampler.add(block)
    yield resampler.rest()


class Resampler:
    """Mono blocks at any rate -> blocks (S,), by soxr (HQ); what is at 16 kHz stays as it is."""

    def __init__(self, rate: int) -> None:
        self._soxr = None
        if rate != SAMPLE_RATE:
            self._soxr = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def add(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the next block adds, which may be nothing yet."""
        return self._run(np.ascontiguousarray(block), last=False)

    def rest(self) -> NDArray[np.float32]:
        """What is left at the end."""
        return self._run(np.zeros(0, np.float32), last=True)

    def _run(self, block: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        if self._soxr is None:
            return block
        resampled: NDArray[np.float32] = self._soxr.resample_chunk(block, last=last)
        return resampled
