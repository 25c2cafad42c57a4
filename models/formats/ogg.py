"""Ogg: a walk over the pages finds the links of a chain, and checks that no page is missing.

RFC 3533. Vorbis and Opus go to libsndfile, which reads one link; FLAC in Ogg goes to FFmpeg.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from models.formats.file import File, View
from models.formats.magic import kind_at
from models.formats.media import open_media
from models.formats.sndfile import open_sndfile
from models.formats.sound import Blocks, ContainerError, Floats, Part, Sound, stop
from models.formats.tags import after_padding

_HEAD = struct.Struct("<4sBBqIIIB")  # mark, version, flags, granule, serial, number, CRC, segments
_BEGINS, _ENDS = 2, 4  # flags
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # zlib counts bits backwards
_CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC"}
_SLACK_S = 0.1  # pre-skip and the first block, which granules do not tell apart
_LOOSE_END_S = 0.25  # encoders that state an end behind their last packet: music of games has it
_OPUS_RATE = 48_000


class _Page(NamedTuple):
    offset: int
    n_bytes: int
    flags: int
    granule: int
    serial: int
    number: int
    body: int  # where its content begins
    is_sound: bool  # whether its checksum is right


@dataclass
class _Stream:
    """One of the streams of a link, side by side.

    Attributes:
        head: what its first packet begins with.
        broken_at: the granule after which a page is missing or damaged.
    """

    head: bytes
    number: int
    stretches: list[tuple[int, int]] = field(default_factory=list)
    n_pages: int = 0
    first: int | None = None
    last: int = 0
    has_end: bool = False
    broken_at: int | None = None

    def add(self, page: _Page) -> None:
        """Take in a page."""
        if self.stretches and self.stretches[-1][1] == page.offset:
            self.stretches[-1] = (self.stretches[-1][0], page.offset + page.n_bytes)
        else:
            self.stretches.append((page.offset, page.offset + page.n_bytes))
        is_gap = page.number != self.number and self.first is not None
        if (is_gap or not page.is_sound) and self.broken_at is None:
            self.broken_at = self.last
        self.number, self.n_pages = page.number + 1 & 0xFFFFFFFF, self.n_pages + 1
        self.has_end = self.has_end or bool(page.flags & _ENDS)
        if page.granule > 0:  # headers have 0, pages that end no packet -1
            self.first = page.granule if self.first is None else self.first
            self.last = page.granule

    @property
    def codec(self) -> str | None:
        """One of those that are read."""
        return next((name for mark, name in _CODECS.items() if self.head.startswith(mark)), None)

    @property
    def rate(self) -> int:
        """Hz that granules count."""
        if self.codec == "Vorbis":
            return int.from_bytes(self.head[12:16], "little") or 1
        if self.codec == "FLAC":  # 9 bytes of its own, "fLaC", 4 of a block's head, STREAMINFO
            return int.from_bytes(self.head[27:30], "big") >> 4 or 1
        return _OPUS_RATE

    @property
    def is_whole(self) -> bool:
        """Whether every page from the first to the one marked as the last is there and intact."""
        return self.has_end and self.broken_at is None

    @property
    def slack_s(self) -> float:
        """Seconds that it may end before what its last page states."""
        return _LOOSE_END_S if self.is_whole else 0.0

    @property
    def least_s(self) -> float:
        """The least number of seconds that the stream must have."""
        stated = (self.last - (self.first or 0)) / self.rate
        return max(0.0, stated - _SLACK_S - self.slack_s)


def read_ogg(file: File, start: int) -> Part:
    """The link of an Ogg chain that begins at `start`."""
    streams, end, is_cut = _walk(file, start)
    return Part(end, lambda: _sound(file, _audio(streams), is_cut, is_last=end >= file.size))


def _walk(file: File, start: int) -> tuple[list[_Stream], int, bool]:
    """The streams of one link, the offset behind it, and whether its last page is cut."""
    streams: dict[int, _Stream] = {}
    offset, has_begun = start, False
    while offset < file.size:
        page = _page(file, offset)
        if page is None:
            following = _resynced(file, offset)
            if following is None:
                break
            offset = following
            continue
        if page.offset + page.n_bytes > file.size:
            return list(streams.values()), file.size, True
        if page.flags & _BEGINS and has_begun:
            break
        if page.flags & _BEGINS or page.serial not in streams:
            head = file.at(page.body, 64)
            streams[page.serial] = _Stream(head, page.number)
        has_begun = has_begun or not page.flags & _BEGINS
        streams[page.serial].add(page)
        offset += page.n_bytes
    return list(streams.values()), offset, False


def _page(file: File, offset: int) -> _Page | None:
    """The page that begins there, which may end beyond the file."""
    head = file.at(offset, _HEAD.size + 255)
    if len(head) < _HEAD.size:
        return _Page(offset, 1 << 20, 0, 0, 0, 0, 0, False) if head[:4] == b"OggS" else None
    mark, version, flags, granule, serial, number, _, n_segments = _HEAD.unpack_from(head)
    if mark != b"OggS" or version:
        return None
    table = head[_HEAD.size : _HEAD.size + n_segments]
    n_bytes = _HEAD.size + n_segments + sum(table)
    content = file.at(offset, n_bytes)
    body = offset + _HEAD.size + n_segments
    is_sound = len(content) == n_bytes and _is_sound(content)
    return _Page(offset, n_bytes, flags, granule, serial, number, body, is_sound)


def _is_sound(page: bytes) -> bool:
    """Whether a page's checksum is right: CRC-32 without reflection, by zlib on reversed bits."""
    expected = int.from_bytes(page[22:26].translate(_REVERSED), "big")
    blank = page[:22] + bytes(4) + page[26:]
    return zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF == expected


def _resynced(file: File, offset: int) -> int | None:
    """Where the next page begins behind something that is none; None where the Ogg ends."""
    behind = after_padding(file, offset)
    if behind > offset:
        return behind if file.at(behind, 4) == b"OggS" else None
    if kind_at(file, offset) not in (None, "ogg"):
        return None
    found = file.find(b"OggS\0", offset + 1)
    if found < 0:
        return None
    file.warn(f"{found - offset} bytes between Ogg pages were skipped.")
    return found


def _audio(streams: list[_Stream]) -> _Stream:
    """The one stream of a link that is read."""
    known = [stream for stream in streams if stream.codec]
    if not known:
        message = "only Vorbis, Opus and FLAC are accepted inside Ogg; encode as one of them"
        raise ContainerError("unsupported", message)
    if len(known) > 1:
        message = (
            f"the Ogg file holds {len(known)} soundtracks side by side; extract the one to use"
        )
        raise ContainerError("unsupported", message, 1, len(known), "tracks")
    return known[0]


def _sound(file: File, stream: _Stream, is_cut: bool, *, is_last: bool) -> Sound:
    view = View(file, stream.stretches)
    if stream.codec == "FLAC":
        sound = open_media(view, "Ogg", "ogg", {"flac"}, promised_s=stream.last / stream.rate)
    else:
        sound = open_sndfile(view, "OGG", stream.least_s, stream.slack_s)
    if is_cut:
        return replace(sound, is_cut=True, blocks=_broken(stream, "truncated", stream.last))
    if stream.broken_at is not None:
        return replace(sound, blocks=_broken(stream, "corrupt", stream.broken_at))
    if not stream.has_end and is_last:
        file.warn(
            f"The Ogg stream has no end mark after {stream.last / stream.rate:.2f} s: it was "
            "recorded live, or the file was cut between two pages."
        )
    return sound


def _broken(stream: _Stream, reason: Literal["corrupt", "truncated"], granule: int) -> Blocks:
    """The blocks of a broken stream: raises its error at once instead of decoding."""

    def blocks(first: int) -> Iterator[Floats]:
        total = stream.last if reason == "corrupt" else None
        stop(reason, "Ogg", stream.rate, granule, total)

    return blocks
