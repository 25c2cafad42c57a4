"""What players write around audio: ID3, APE and Lyrics3 tags, and zeros; all of it is skipped."""

from models.formats.file import File

MAX_ZEROS = 1 << 16  # bytes of padding; more are taken for silence where samples are expected
_APE_BYTES = 32  # of the head and of the foot of an APE tag
_ID3V1_BYTES = 128
_MAX_LYRICS = 1 << 20


def after_tags(file: File, offset: int) -> int:
    """The offset behind any tags that start at `offset`; the end of the file at the most."""
    while offset < file.size and (behind := _after_tag(file, offset)) > offset:
        offset = behind
    return min(offset, file.size)


def after_padding(file: File, offset: int) -> int:
    """The offset behind any tags and zeros."""
    while True:
        behind = after_zeros(file, after_tags(file, offset))
        if behind == offset:
            return offset
        offset = behind


def after_zeros(file: File, offset: int, most: int | None = None) -> int:
    """The offset of the next byte that is not 0, which may be that behind the end.

    Zeros that begin the first box of an MPEG-4 file are left where they are.
    """
    start = offset
    end = file.size if most is None else min(file.size, offset + most)
    while offset < end:
        some = file.at(offset, 4_096)
        rest = some.lstrip(b"\0")
        offset += len(some) - len(rest)
        if rest or not some:
            break
    for place in range(max(start, offset - 3), offset):
        if file.at(place + 4, 4) == b"ftyp":
            return place
    return offset


def _after_tag(file: File, offset: int) -> int:
    head = file.at(offset, _APE_BYTES)
    if head[:3] == b"ID3" and len(head) >= 10 and head[3] < 0xFF:
        a, b, c, d = (byte & 0x7F for byte in head[6:10])  # seven bits in each byte
        foot = 10 if head[5] & 0x10 else 0
        return offset + 10 + (a << 21 | b << 14 | c << 7 | d) + foot
    if head[:8] == b"APETAGEX" and len(head) == _APE_BYTES:
        has_head = head[23] & 0x20  # this is it, and its size leaves it out
        return offset + int.from_bytes(head[12:16], "little") + (_APE_BYTES if has_head else 0)
    if head[:11] == b"LYRICSBEGIN":
        for mark in (b"LYRICS200", b"LYRICSEND"):
            if (found := file.find(mark, offset, offset + _MAX_LYRICS)) >= 0:
                return found + len(mark)
    if head[:3] == b"TAG" and offset + _ID3V1_BYTES <= file.size:
        return offset + _ID3V1_BYTES
    return offset
