"""FLAC: what the header counts is held against what the numbered blocks come to.

RFC 9639. libsndfile ends where the header says; files that were joined follow one another.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from models.formats.file import File, View
from models.formats.magic import FLAC, kind_at
from models.formats.sndfile import open_sndfile
from models.formats.sound import AGAIN, ContainerError, Part, Sound
from models.formats.tags import after_padding, after_zeros

_HEADER_BYTES = 42  # "fLaC", a block's head, STREAMINFO
_CHECKSUM_BYTES = 2
_BLOCK_HEAD_BYTES = 17  # at the most
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_CHUNK = 1 << 20  # bytes searched for blocks at a time
_SEARCHED = 1 << 17  # bytes in which a block must end, or twice the longest one
_RATES = (
    0,
    88_200,
    176_400,
    192_000,
    8_000,
    16_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    96_000,
)
_BITS = (0, 8, 12, -1, 16, 20, 24, 32)


class _Info(NamedTuple):
    """STREAMINFO.

    Attributes:
        block: frames in each block but the last, 0 where they vary.
        longest: bytes of the longest block, 0 where the header does not say.
        total: frames, 0 where the header does not say.
    """

    block: int
    longest: int
    rate: int
    channels: int
    bits: int
    total: int


def _crc16_table() -> tuple[int, ...]:
    """CRC-16 with the polynomial x^16 + x^15 + x^2 + 1, of each byte."""
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x18005 if crc & 0x8000 else 0)
        table.append(crc)
    return tuple(table)


_CRC16 = _crc16_table()


def read_flac(file: File, start: int) -> Part:
    """The FLAC file that begins at `start`."""
    marks = [file.find(mark, start + 4) for mark in FLAC]
    end = min((offset for offset in marks if offset >= 0), default=file.size)
    header = file.at(start, _HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[4] & 0x7F or header[5:8] != b"\0\0\x22":
        raise ContainerError("corrupt", f"the FLAC headers cannot be read; {AGAIN}")
    info = _info(header)
    frames, last = _walk(file, info, start, end)
    stop = end
    if last is not None and frames >= info.total:
        stop = _end_of_frame(file, last, min(end, last + max(_SEARCHED, 2 * info.longest)))
    return Part(stop, lambda: _sound(file, header, info, frames, start, stop))


def _sound(file: File, header: bytes, info: _Info, frames: int, start: int, stop: int) -> Sound:
    seconds = frames / max(1, info.rate)
    if frames <= info.total or not info.total:
        least_s = 0.0 if info.total else seconds
        return open_sndfile(View(file, [(start, stop)]), "FLAC", least_s)
    file.warn(
        f"The FLAC header counts {info.total / max(1, info.rate):.2f} s, and {seconds:.2f} s are "
        "there: all of it was read."
    )
    fields = int.from_bytes(header[18:26], "big") >> 36 << 36 | frames
    corrected = header[:18] + fields.to_bytes(8, "big") + header[26:]
    return open_sndfile(View(file, [(start + _HEADER_BYTES, stop)], corrected), "FLAC", seconds)


def _walk(file: File, info: _Info, start: int, stop: int) -> tuple[int, int | None]:
    """How many frames of audio the blocks hold that follow each other, and where the last begins.

    A block that is missing or whose header is damaged ends the walk; the decoder will say so.
    """
    frames, last = 0, None
    for offset, head in _candidates(file, start, stop):
        block = _block(head, info)
        if block is not None and block[0] == frames:
            frames, last = frames + block[1], offset
    return frames, last


def _candidates(file: File, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Places where a block may begin, and the bytes there."""
    offset = start + _HEADER_BYTES
    while offset < stop:
        chunk = file.at(offset, min(_CHUNK, stop - offset) + _BLOCK_HEAD_BYTES)
        for found in _SYNC.finditer(chunk, 0, min(_CHUNK + 1, len(chunk))):
            place = found.start()
            yield offset + place, chunk[place : place + _BLOCK_HEAD_BYTES]
        offset += _CHUNK


def _end_of_frame(file: File, start: int, stop: int) -> int:
    """Where the last block ends: its checksum is right, and what follows makes sense.

    `stop` if there is no such place.
    """
    crc = 0
    for place, byte in enumerate(file.at(start, stop - start), start + 1):
        crc = (crc << 8 & 0xFF00) ^ _CRC16[crc >> 8 ^ byte]
        if crc == 0:  # as it is now and then inside a block, and there a zero may follow
            behind = after_padding(file, place)
            if behind >= file.size or kind_at(file, behind) is not None:
                # A zero or two may be the checksum's; those that are not are not read
                return min(place + _CHECKSUM_BYTES, after_zeros(file, place, _CHECKSUM_BYTES))
    return stop


def _info(header: bytes) -> _Info:
    least, most = (int.from_bytes(header[place : place + 2], "big") for place in (8, 10))
    fields = int.from_bytes(header[18:26], "big")
    return _Info(
        block=most if least == most else 0,
        longest=int.from_bytes(header[15:18], "big"),
        rate=fields >> 44,
        channels=(fields >> 41 & 7) + 1,
        bits=(fields >> 36 & 31) + 1,
        total=fields & (1 << 36) - 1,
    )


def _block(head: bytes, info: _Info) -> tuple[int, int] | None:
    """The first frame of audio of the block with this header, and how many it holds."""
    if len(head) < 6 or head[3] & 1:
        return None
    sizes, rates = head[2] >> 4, head[2] & 15
    channels, bits = head[3] >> 4, _BITS[head[3] >> 1 & 7]
    n_channels = channels + 1 if channels < 8 else 2
    if channels > 10 or n_channels != info.channels or bits not in (0, info.bits):
        return None
    if sizes == 0 or rates == 15 or (0 < rates < 12 and _RATES[rates] != info.rate):
        return None
    number, place = _number(head)
    if number is None:
        return None
    n_frames, extra = _block_frames(head, sizes, place)
    place += extra + (0, 1, 2, 2)[max(0, rates - 11)]
    if place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    return number if head[1] & 1 else number * (info.block or n_frames), n_frames


def _number(head: bytes) -> tuple[int | None, int]:
    """The number of a block, in the manner of UTF-8, and where it ends."""
    n_more = 8 - (head[4] ^ 0xFF).bit_length()  # ones that it begins with
    if n_more == 0:
        return head[4], 5
    rest = head[5 : 4 + n_more]
    if n_more == 1 or n_more > 7 or len(rest) < n_more - 1 or any(b >> 6 != 2 for b in rest):
        return None, 0
    number = head[4] & (0x7F >> n_more)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, 4 + n_more


def _block_frames(head: bytes, sizes: int, place: int) -> tuple[int, int]:
    """Frames of audio in a block, and the bytes that tell them."""
    if sizes == 6:
        return head[place] + 1 if place < len(head) else 0, 1
    if sizes == 7:
        return int.from_bytes(head[place : place + 2], "big") + 1, 2
    if sizes == 1:
        return 192, 0
    return (144 << sizes if sizes < 6 else 1 << sizes), 0


def _crc8(data: bytes) -> int:
    """CRC-8 with the polynomial x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return crc
