"""What may be sent as a sound, and how its bytes are read: anew for every attempt."""

import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

MAX_CHANNELS = 1024  # of a WAV that libsndfile writes
PIECE_BYTES = 1 << 18  # a file is read so much at a time: memory does not grow with it

Samples = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
Sound = str | Path | bytes | Samples
"""A path, a file's bytes, or samples (S,) or (S, channels), floats in [-1, 1] or integers."""


@dataclass(frozen=True)
class Upload:
    """A sound ready to be sent, as often as it takes.

    Attributes:
        source: the file, or its bytes.
        name: what answers call it; None where there is no file.
    """

    source: Path | bytes
    name: str | None = None

    @property
    def n_bytes(self) -> int:
        """Length of the body."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning."""
        with self.opened() as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def part(self, first: int, n_bytes: int) -> bytes:
        """So many bytes of it, from there on."""
        with self.opened() as file:
            file.seek(first)
            return file.read(n_bytes)

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """The same on an event loop; a piece is read in less time than a thread takes to start."""
        for piece in self.pieces():
            yield piece

    def opened(self) -> BinaryIO:
        """The body as an open file."""
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


def upload(sound: Sound, sample_rate: int | None = None) -> Upload:
    """Make a sound ready.

    Args:
        sound: the sound.
        sample_rate: Hz, of samples; needed with them and with nothing else.

    Raises:
        ValueError: samples without their rate, a rate without samples, or of a shape that is none.
        FileNotFoundError: there is no such file.
    """
    if isinstance(sound, np.ndarray):
        if sample_rate is None:
            raise ValueError("samples need their sample_rate in Hz: sample_rate=16000")
        return Upload(_wav(sound, sample_rate))
    if sample_rate is not None:
        raise ValueError("sample_rate is for samples in an array; a file says its own")
    if isinstance(sound, bytes):
        return Upload(sound)
    path = Path(sound)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return Upload(path, path.name)


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
