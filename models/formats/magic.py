"""The first bytes of every format: what begins at an offset of a file."""

import re
from typing import Literal

from models.formats.file import File
from models.formats.frames import HEAD_BYTES, begins_stream, frame_at, is_adts
from models.formats.media import ASF, EBML, is_ebml

Kind = Literal[
    "wav", "w64", "aiff", "au", "caf", "ogg", "flac", "movie", "matroska", "asf", "amr",
    "mp3", "adts",
]  # fmt: skip

W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
AMR = (b"#!AMR\n", b"#!AMR-WB\n")
FLAC = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # and the length of what must follow
MAX_AU_HEADER = 1 << 16
_CHUNK = 1 << 20  # bytes searched at a time
_NAMES = re.compile(
    b"|".join(
        re.escape(name)
        for name in (b"RIFF", b"RF64", b"BW64", b"FORM", b"OggS\0", *FLAC, b"ftyp", b"caff\0\1")
        + (b".snd\0", ASF, EBML, W64_RIFF, *AMR)
    )
)


def kind_at(file: File, offset: int) -> Kind | None:
    """What begins there, told by enough bytes to be no accident."""
    head = file.at(offset, 40)
    if kind := _by_name(head):
        return kind
    if head[:4] == EBML and is_ebml(file, offset):
        return "matroska"
    if head[:1] == b"\xff" and begins_stream(file, offset):
        return "adts" if is_adts(head) else "mp3"
    return None


def find_recording(file: File, start: int) -> int | None:
    """Where the next recording begins whose first bytes are a name."""
    for first in range(start, file.size, _CHUNK):
        for found in _NAMES.finditer(file.at(first, _CHUNK + 16)):
            offset = first + found.start() - (4 if found.group() == b"ftyp" else 0)
            if offset >= start and kind_at(file, offset) is not None:
                return offset
    return None


def lone_frame(file: File, offset: int) -> Kind | None:
    """MP3 or AAC of which there is one frame and nothing that contradicts it."""
    head = file.at(offset, HEAD_BYTES)
    frame = frame_at(head)
    if frame is None:
        return None
    following = frame_at(file.at(offset + frame.n_bytes, HEAD_BYTES))
    if following is None and offset + frame.n_bytes < file.size:
        return None
    return "adts" if is_adts(head) else "mp3"


def _by_name(head: bytes) -> Kind | None:
    first, third = head[:4], head[8:12]
    if first in (b"RIFF", b"RF64", b"BW64") and third == b"WAVE":
        return "wav"
    if first == b"FORM" and third in (b"AIFF", b"AIFC"):
        return "aiff"
    if first == b"OggS" and head[4:5] == b"\0":
        return "ogg"
    if first == b"fLaC":
        return "flac"
    if head[4:8] == b"ftyp":
        return "movie"
    if head[:8] == b"caff\x00\x01\x00\x00":
        return "caf"
    if head.startswith(AMR):
        return "amr"
    if head[:16] == ASF:
        return "asf"
    if head[:16] == W64_RIFF:
        return "w64"
    return "au" if is_au(head) else None


def is_au(head: bytes) -> bool:
    """Whether bytes begin an AU file whose header makes sense."""
    header_bytes, encoding = int.from_bytes(head[4:8], "big"), int.from_bytes(head[12:16], "big")
    fits = 24 <= header_bytes <= MAX_AU_HEADER and 1 <= encoding <= 27
    return head[:4] == b".snd" and len(head) >= 24 and fits
