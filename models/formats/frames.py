"""Headers of MPEG audio frames: MP3 (layer III) and AAC in ADTS. Each tells where the next begins.

ISO/IEC 11172-3 and 13818-3 for MP3, 13818-7 for ADTS.
"""

from functools import cache
from typing import NamedTuple

from models.formats.file import File

LOOKED_AHEAD = 1 << 16  # bytes of something else before the first frame
IN_A_ROW = 3  # frames that make it no accident

_BIT_RATES = {  # kbit/s, of MPEG 1 and of MPEG 2 and 2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = (44_100, 48_000, 32_000)
_ADTS_RATES = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
HEAD_BYTES = 7


class Frame(NamedTuple):
    """What the header of one frame says.

    Attributes:
        n_bytes: of the whole frame.
        samples: of each channel.
        rate: Hz.
        channels: count.
        kind: what may not change within a stream: the version, and of AAC the profile.
    """

    n_bytes: int
    samples: int
    rate: int
    channels: int
    kind: int

    @property
    def stream(self) -> tuple[int, int, int]:
        """What the frames of one stream have in common."""
        return self.kind, self.rate, self.channels


def frame_at(head: bytes) -> Frame | None:
    """The frame that begins with these bytes, if one does."""
    if len(head) < HEAD_BYTES or head[0] != 0xFF or head[1] < 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return _adts(head)
    return _mp3(head[1], head[2], head[3] >> 6 == 3)


def is_adts(head: bytes) -> bool:
    """Whether the header of a frame is one of AAC."""
    return head[1] & 0xF6 == 0xF0


@cache
def _mp3(second: int, third: int, is_mono: bool) -> Frame | None:
    version, layer = second >> 3 & 3, second >> 1 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    bit_rate, rate = third >> 4, third >> 2 & 3
    if version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
        return None
    is_first = version == 3
    hertz = _MP3_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 1_152 if is_first else 576
    n_bytes = samples // 8 * 1_000 * _BIT_RATES[is_first][bit_rate] // hertz + (third >> 1 & 1)
    return Frame(n_bytes, samples, hertz, 1 if is_mono else 2, version)


def _adts(head: bytes) -> Frame | None:
    rate = head[2] >> 2 & 15
    channels = (head[2] & 1) << 2 | head[3] >> 6
    n_bytes = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate >= len(_ADTS_RATES) or n_bytes <= HEAD_BYTES:
        return None
    samples = 1_024 * ((head[6] & 3) + 1)
    return Frame(n_bytes, samples, _ADTS_RATES[rate], channels, 16 + (head[2] >> 6))


def begins_stream(file: File, offset: int, in_a_row: int = IN_A_ROW) -> bool:
    """Whether several frames of one stream follow each other, or as many as there are."""
    first = None
    for n_found in range(in_a_row):
        if offset >= file.size and n_found > 1:
            return True
        frame = frame_at(file.at(offset, HEAD_BYTES))
        if frame is None or (first is not None and frame.stream != first.stream):
            return False
        first, offset = frame, offset + frame.n_bytes
    return True


def find_stream(file: File, start: int, stop: int) -> int | None:
    """Where the first stream of frames begins, looked for between two offsets."""
    offset = start
    while (offset := file.find(b"\xff", offset, stop)) >= 0:
        if begins_stream(file, offset):
            return offset
        offset += 1
    return None
