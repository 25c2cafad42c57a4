"""Apple's CAF: PCM, float, A-law and mu-law; ALAC, AAC and IMA ADPCM by FFmpeg.

https://developer.apple.com/library/archive/documentation/MusicAudio/Reference/CAFSpec
"""

import math
import struct
from typing import Literal

from models.formats.file import File, View
from models.formats.media import open_media
from models.formats.pcm import Extent, Layout, Rules, behind, find_samples, pcm_sound
from models.formats.sound import ContainerError, Part, Sound

_MAX_CHUNKS = 1_000
_IS_FLOAT, _IS_LITTLE = 1, 2
_PCM = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}  # by the bytes of a sample
_FLOAT = {4: "FLOAT", 8: "DOUBLE"}
_LAWS = {b"alaw": "ALAW", b"ulaw": "ULAW"}
_CODECS = {b"alac": "alac", b"aac ": "aac", b"ima4": "adpcm_ima_qt"}  # FFmpeg's words
_IMA_BYTES, _IMA_FRAMES = 34, 64
CAF = b"caff\x00\x01\x00\x00"


def _next_chunk(file: File, offset: int) -> int | None:
    head = file.at(offset, 12)
    n_bytes = int.from_bytes(head[4:12], "big", signed=True)
    fits = len(head) == 12 and 0 <= n_bytes <= file.size - offset - 12
    is_name = all(0x20 <= byte < 0x7F for byte in head[:4])
    return offset + 12 + n_bytes if fits and is_name else None


_RULES = Rules(_next_chunk, b"data", CAF, lambda head: True, wraps=False)


def read_caf(file: File, start: int) -> Part:
    """The CAF file that begins at `start`."""
    described, packets, data = _chunks(file, start)
    rate_hz, kind, flags, packet_bytes, _, channels, bits = struct.unpack(">d4sIIIII", described)
    rate = round(rate_hz) if math.isfinite(rate_hz) and 0 <= rate_hz < 2**31 else 0
    if kind in _CODECS:
        unit = Layout("CAF", "", channels, max(1, rate), max(1, packet_bytes), "BIG")
    else:
        unit = _layout(kind, flags, channels, rate, bits)
    offset, n_bytes = data
    claimed = None if n_bytes < 0 else max(0, n_bytes - 4)  # 4: how often it was edited
    extent = find_samples(file, unit, offset + 4, claimed, _RULES)
    end = behind(file, extent.stop, _RULES, "CAF")

    def opened() -> Sound:
        if kind not in _CODECS:
            return pcm_sound(file, unit, extent)
        frames = _frames(kind, packets, extent, channels)
        is_lossless = kind == b"alac"  # FFmpeg trims its last packet, which has no padding
        return open_media(
            View(file, [(start, end)]),
            "CAF",
            "caf",
            {_CODECS[kind]},
            frames=frames if is_lossless else None,
            promised_s=None if frames is None else frames / max(1, rate),
            slack_s=0.0 if is_lossless else 0.1,
            is_cut=extent.is_cut,
            trims=not is_lossless,
        )

    return Part(end, opened)


def _frames(kind: bytes, packets: bytes, extent: Extent, channels: int) -> int | None:
    """What the table of packets tells, or the number of packets of one size comes to."""
    if kind == b"ima4":
        return extent.n_bytes // (_IMA_BYTES * max(1, channels)) * _IMA_FRAMES
    if len(packets) < 16:
        return None
    return max(0, int.from_bytes(packets[8:16], "big", signed=True))


def _chunks(file: File, start: int) -> tuple[bytes, bytes, tuple[int, int]]:
    """The description, the head of the table of packets, and where the data are."""
    described, packets, data = b"", b"", None
    offset = start + len(CAF)
    for _ in range(_MAX_CHUNKS):
        head = file.at(offset, 12)
        if len(head) < 12:
            break
        name, n_bytes = struct.unpack(">4sq", head)
        if name == b"desc":
            described = file.at(offset + 12, 32)
        elif name == b"pakt":
            packets = file.at(offset + 12, 24)
        elif name == b"data" and data is None:
            data = offset + 12, n_bytes
        if n_bytes < 0:
            break
        offset += 12 + n_bytes
    if len(described) < 32:
        raise ContainerError("corrupt", "the CAF file has no description; export it again")
    if data is None:
        raise ContainerError("truncated", "the CAF file has no data; copy or export it again")
    return described, packets, data


def _layout(kind: bytes, flags: int, channels: int, rate: int, bits: int) -> Layout:
    sample_bytes = (bits + 7) // 8
    endian: Literal["LITTLE", "BIG"] = "LITTLE" if flags & _IS_LITTLE else "BIG"
    subtype = (_FLOAT if flags & _IS_FLOAT else _PCM).get(sample_bytes)
    if kind in _LAWS:
        subtype, sample_bytes = _LAWS[kind], 1
    elif kind != b"lpcm" or subtype is None:
        shown = kind.decode("ascii", "replace").strip()
        message = f"CAF of the kind {shown!r} with {bits} bits is not accepted; export as PCM"
        raise ContainerError("unsupported", message)
    return Layout("CAF", subtype, channels, rate, channels * sample_bytes, endian)
