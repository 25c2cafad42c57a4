"""A recording on its way through the engine: decoded, then embedded.

Letters: `S` samples, `D` embedding dim, `N` windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE
from models.quality import Quality
from models.runtime import Windows


@dataclass(frozen=True)
class Clip:
    """A decoded file: mono samples at 16 kHz (S,), and its quality if that was asked for.

    `start_s` is where in its recording it begins.
    """

    samples: NDArray[np.float32]
    quality: Quality | None = None
    warnings: Sequence[str] = ()
    start_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Embedded:
    """A file's vector (D,), and those of its windows (N, D) if they were asked for."""

    duration_s: float
    embedding: NDArray[np.float32]
    windows: Windows | None = None
    quality: Quality | None = None
    warnings: Sequence[str] = ()

    @property
    def n_windows(self) -> int:
        """How many windows were asked for."""
        return len(self.windows.start_s) if self.windows else 0

    @property
    def n_vectors(self) -> int:
        """How many vectors there are: its own and its windows'."""
        return 1 + self.n_windows
