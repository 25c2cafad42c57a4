"""What may be sent as a sound, and how its bytes are read: anew for every attempt."""

import io
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

MAX_CHANNELS = 1024  # of a WAV that libsndfile writes
PIECE_BYTES = 1 << 18  # a file is read so much at a time: memory does not grow with it

Samples = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
Sound = str | Path | bytes | bytearray | memoryview | BinaryIO | Samples
"""A path, a file's bytes, a file open for reading, or samples (S,) or (S, channels), floats in
[-1, 1] or integers, as an array or a tensor."""

T = TypeVar("T")


@dataclass(frozen=True)
class Upload:
    """A sound ready to be sent, as often as it takes.

    Attributes:
        source: the file, or its bytes.
        name: what answers call it; None where there is no file.
    """

    source: Path | bytes
    name: str | None = None

    @cached_property
    def n_bytes(self) -> int:
        """Length of the body, as it is announced; it does not follow a file that changes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning."""
        with self.opened() as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def part(self, first: int, n_bytes: int) -> bytes:
        """So many bytes of it, from there on.

        Raises:
            OSError: it is not as long any more as was announced.
        """
        with self.opened() as file:
            if file.seek(0, os.SEEK_END) != self.n_bytes:
                raise self.changed()
            file.seek(first)
            return file.read(n_bytes)

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """The same on an event loop; a piece is read in less time than a thread takes to start."""
        for piece in self.pieces():
            yield piece

    def opened(self) -> BinaryIO:
        """The body as an open file."""
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    def changed(self) -> OSError:
        """The error of a file that something writes while it is sent."""
        name = self.name or "a sound"
        return OSError(f"{name} changed while it was sent; send it again once nothing writes to it")


def upload(sound: Sound, sample_rate: int | None = None) -> Upload:
    """Make a sound ready.

    Args:
        sound: the sound.
        sample_rate: Hz, of samples; needed with them and with nothing else.

    Raises:
        ValueError: samples without their rate, a rate without samples, or of a shape that is none.
        TypeError: it is none of what may be sent.
        FileNotFoundError: there is no such file.
    """
    if hasattr(sound, "__array__"):
        if sample_rate is None:
            raise ValueError("samples need their sample_rate in Hz: sample_rate=16000")
        return Upload(_wav(np.asarray(sound), sample_rate))
    if sample_rate is not None:
        raise ValueError("sample_rate is for samples in an array; a file says its own")
    if isinstance(sound, bytes | bytearray | memoryview):
        return Upload(bytes(sound))
    if not isinstance(sound, str | os.PathLike):
        return _read(sound)
    path = Path(sound)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return Upload(path, _printable(path))


def several(given: Iterable[T], what: str) -> list[T]:
    """All of them; a text, which would be taken letter by letter, is refused.

    Raises:
        TypeError: it is one, and no list.
    """
    is_one = isinstance(given, str | bytes | os.PathLike | Mapping) or getattr(given, "ndim", 2) < 2
    if is_one or not isinstance(given, Iterable):
        raise TypeError(f"{what}: expected a list, not one {type(given).__name__}: put it in [ ]")
    return list(given)


def _read(file: Any) -> Upload:
    content = file.read() if hasattr(file, "read") else None
    if not isinstance(content, bytes):
        kind = "file opened as text" if isinstance(content, str) else type(file).__name__
        raise TypeError(
            f"a {kind} is no sound; expected a path, a file's bytes, a file opened with mode 'rb', "
            "or samples with their sample_rate"
        )
    name = getattr(file, "name", None)
    return Upload(content, _printable(Path(name)) if isinstance(name, str) else None)


def _printable(path: Path) -> str:
    """The name of a file; bytes of it that are no UTF-8, which no request can hold, as U+FFFD."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def _wav(samples: Samples, sample_rate: int) -> bytes:
    """Samples as a WAV of their own precision: 16 bits stay 16 bits, everything else is float32."""
    if samples.ndim not in (1, 2) or samples.size == 0 or samples[:1].size > MAX_CHANNELS:
        raise ValueError(f"samples of shape {samples.shape}; expected (S,) or (S, channels)")
    if not isinstance(sample_rate, int | np.integer) or not 0 < sample_rate < 2**31:
        raise ValueError(f"sample_rate = {sample_rate!r}; expected Hz, a whole number above 0")
    if samples.dtype.name == "int32":
        samples = samples / np.float64(2**31)
    is_16_bit = samples.dtype.name == "int16"
    if not is_16_bit and samples.dtype.kind != "f":
        raise ValueError(
            f"samples are {samples.dtype}; expected floats in [-1, 1], int16 or int32: scale them"
        )
    file = io.BytesIO()
    values = samples.astype(np.int16 if is_16_bit else np.float32)
    sf.write(file, values, sample_rate, format="WAV", subtype="PCM_16" if is_16_bit else "FLOAT")
    return file.getvalue()
