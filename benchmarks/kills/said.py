"""What children say that they do, and made recordings that a number alone decides."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from service.collections.records import NewItem, Terms

DIMENSIONS = 64
TERMS = Terms("made", "made-space", DIMENSIONS, 5.0, 5.0, keeps_audio=True)
NOBODY = np.array([], np.int64)


def say(word: str, number: int) -> None:
    """Tell whoever kills this process: `adding` before, `added` once it is acknowledged."""
    os.write(1, f"{word} {number}\n".encode())


@dataclass
class Said:
    """What children have said so far.

    `open` is what was begun and not acknowledged: either is right.
    """

    present: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)

    def hear(self, lines: Iterable[str]) -> None:
        for line in lines:
            word, number = line.split()
            for state in (self.present, self.gone, self.open):
                state.discard(int(number))
            state = {"added": self.present, "deleted": self.gone}.get(word, self.open)
            state.add(int(number))

    def check(self, found: set[int]) -> None:
        """Compare with what is there."""
        assert self.present <= found, f"lost: {sorted(self.present - found)}"
        assert not self.gone & found, f"not deleted: {sorted(self.gone & found)}"
        assert found <= self.present | self.open, f"from nowhere: {sorted(found - self.present)}"


def vector(number: int, space_id: str = TERMS.space_id, n_windows: int = 1) -> np.ndarray:
    """The vectors of a made recording in a space (N, D)."""
    seed = int.from_bytes(hashlib.sha256(f"{number} {space_id}".encode()).digest()[:8])
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_windows, DIMENSIONS)).astype(np.float32)


def item(number: int, n_windows: int = 1, audio_bytes: int = 50_000) -> NewItem:
    """A made recording."""
    name = str(number)
    start_s = 5.0 * np.arange(n_windows)
    audio = (name * (1 + audio_bytes // len(name))).encode()
    return NewItem(
        hashlib.sha256(name.encode()).hexdigest(),
        start_s,
        start_s + 5,
        vector(number, n_windows=n_windows),
        5.0 * n_windows,
        name,
        None,
        {"number": number},
        audio,
    )
