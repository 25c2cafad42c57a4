"""An open file as the readers of formats see it: bytes at any offset, and stretches as a file."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from typing import BinaryIO

_WINDOW = 1 << 18  # bytes held, for reads that go forwards
_SEARCHED = 1 << 20  # bytes searched at a time
MAX_WARNINGS = 8


class File:
    """Random reads of a file, fast where they go forwards.

    Attributes:
        raw: the file itself.
        size: bytes.
        warnings: what was noticed and is no error, in sentences.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self.size = raw.seek(0, io.SEEK_END)
        self.warnings: list[str] = []
        self._held, self._start = b"", 0

    def at(self, offset: int, n_bytes: int) -> bytes:
        """The bytes at an offset, fewer at the end of the file."""
        first = offset - self._start
        if first < 0 or first + n_bytes > len(self._held):
            if n_bytes >= _WINDOW:
                self.raw.seek(offset)
                return self.raw.read(n_bytes)
            self.raw.seek(offset)
            self._held, self._start = self.raw.read(_WINDOW), offset
            first = 0
        return self._held[first : first + n_bytes]

    def find(self, wanted: bytes, start: int, end: int | None = None) -> int:
        """Where these bytes next begin and end before `end`; -1 if they do not."""
        end = self.size if end is None else min(end, self.size)
        while start + len(wanted) <= end:
            self.raw.seek(start)
            searched = self.raw.read(min(_SEARCHED, end - start))
            found = searched.find(wanted)
            if found >= 0:
                return start + found
            if len(searched) < len(wanted):
                break
            start += len(searched) - len(wanted) + 1
        return -1

    def is_zero(self, start: int, end: int) -> bool:
        """Whether a stretch holds nothing but zeros."""
        return not any(
            self.at(first, min(_WINDOW, end - first)).strip(b"\0")
            for first in range(start, end, _WINDOW)
        )

    def warn(self, sentence: str) -> None:
        """Note something that is no error; the first few are kept."""
        if len(self.warnings) < MAX_WARNINGS and sentence not in self.warnings:
            self.warnings.append(sentence)


class View(io.RawIOBase):
    """Bytes of our own and then stretches (start, stop) of a file, as a file that is only read."""

    def __init__(self, file: File, stretches: Sequence[tuple[int, int]], head: bytes = b"") -> None:
        super().__init__()
        self._raw, self._head, self._stretches = file.raw, head, stretches
        self._begins = [len(head)]  # of each stretch, and at last of what lies behind
        for start, end in stretches:
            self._begins.append(self._begins[-1] + end - start)
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Choose where the next read begins."""
        base = (0, self._position, self._begins[-1])[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end."""
        left = self._begins[-1] - self._position
        left = left if size < 0 else min(size, left)
        pieces = []
        while left > 0:
            piece = self._some(left)
            if not piece:
                break  # the file has shrunk under our hands
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there are bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _some(self, n_bytes: int) -> bytes:
        """At most so many bytes of the stretch that the position lies in."""
        position = self._position
        if position < len(self._head):
            piece = self._head[position : position + n_bytes]
        else:
            index = bisect_right(self._begins, position) - 1
            start, end = self._stretches[index]
            offset = start + position - self._begins[index]
            self._raw.seek(offset)
            piece = self._raw.read(min(n_bytes, end - offset))
        self._position += len(piece)
        return piece
