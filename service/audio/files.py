"""One file of a request, from its arrival until it is decoded."""

from dataclasses import dataclass

import numpy as np

from models.runtime import Floats

File = bytes | bytearray | memoryview


@dataclass
class Upload:
    """One file as it came, until it is decoded; the name is fit to echo and is never a path.

    Samples (S,) at 16 kHz that a client sends as such are no file, and are not decoded.
    """

    data: File | Floats
    name: str | None = None

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        return self.data.nbytes if isinstance(self.data, np.ndarray) else len(self.data)

    def forget(self) -> None:
        """Let go of the bytes, once the samples are there; the name stays."""
        self.data = b""
