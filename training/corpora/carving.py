"""Sounds that lie one after another, uncompressed, in a file whose own format is not known.

Games keep them so in resource files. WAV says its size in its header; an Ogg stream goes from its
first page to its last, and each page says its size. What cannot be followed to its end is passed
over.
"""

from collections.abc import Iterator

_RIFF_HEAD = 12
_PAGE_HEAD = 27  # of an Ogg page: then come the sizes of its segments
_FIRST, _LAST = 2, 4  # flags of an Ogg page


def carve(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each sound in `data` and where it begins, in bytes."""
    place = 0
    while (found := _next(data, place)) >= 0:
        end = _wav_end(data, found) if data[found : found + 4] == b"RIFF" else _ogg_end(data, found)
        if end is not None:
            yield found, data[found:end]
        place = end or found + 4


def _next(data: bytes, place: int) -> int:
    found = [at for at in (data.find(b"RIFF", place), data.find(b"OggS", place)) if at >= 0]
    return min(found, default=-1)


def _wav_end(data: bytes, start: int) -> int | None:
    if data[start + 8 : start + _RIFF_HEAD] != b"WAVE":
        return None
    end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    return end if end <= len(data) else None


def _ogg_end(data: bytes, start: int) -> int | None:
    place, serial = start, data[start + 14 : start + 18]
    while data[place : place + 4] == b"OggS" and len(data) >= place + _PAGE_HEAD:
        flags, n_segments = data[place + 5], data[place + 26]
        if (place == start) != bool(flags & _FIRST) or data[place + 14 : place + 18] != serial:
            return None
        sizes = data[place + _PAGE_HEAD : place + _PAGE_HEAD + n_segments]
        place += _PAGE_HEAD + n_segments + sum(sizes)
        if flags & _LAST:
            return place if place <= len(data) else None
    return None
