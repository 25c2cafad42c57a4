"""AIFF and AIFF-C: PCM, float, A-law and mu-law; IMA ADPCM by FFmpeg.

https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/AIFF/AIFF.html
"""

import struct
from typing import Literal

from models.formats.file import File, View
from models.formats.media import open_media
from models.formats.pcm import Layout, Rules, behind, chunk_rule, find_samples, pcm_sound
from models.formats.sound import ContainerError, Part, Sound

_MAX_CHUNKS = 1_000
_PCM = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}  # by the bytes of a sample
_TYPES: dict[bytes, tuple[str, int, Literal["LITTLE", "BIG"]]] = {
    b"fl32": ("FLOAT", 4, "BIG"),
    b"FL32": ("FLOAT", 4, "BIG"),
    b"fl64": ("DOUBLE", 8, "BIG"),
    b"FL64": ("DOUBLE", 8, "BIG"),
    b"alaw": ("ALAW", 1, "BIG"),
    b"ALAW": ("ALAW", 1, "BIG"),
    b"ulaw": ("ULAW", 1, "BIG"),
    b"ULAW": ("ULAW", 1, "BIG"),
    b"raw ": ("PCM_U8", 1, "BIG"),
}
_IMA_BYTES, _IMA_FRAMES = 34, 64  # of a packet of one channel


def is_aiff(head: bytes) -> bool:
    """Whether bytes begin an AIFF file."""
    return head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")


_RULES = Rules(chunk_rule(">"), b"SSND", b"FORM", is_aiff)


def read_aiff(file: File, start: int) -> Part:
    """The AIFF file that begins at `start`."""
    common, data = _chunks(file, start)
    channels, _, bits = struct.unpack(">hIh", common[:8])
    rate, kind = _extended(common[8:18]), common[18:22] or b"NONE"
    if kind == b"ima4":
        layout = Layout("AIFF", "", channels, rate // _IMA_FRAMES, _IMA_BYTES * channels, "BIG")
    else:
        layout = _layout(kind, channels, rate, bits)
    offset, n_bytes = data
    skipped = int.from_bytes(file.at(offset, 4), "big")
    outer = int.from_bytes(file.at(start + 4, 4), "big")
    begin, claimed = offset + 8 + skipped, max(0, n_bytes - 8 - skipped)
    is_unknown = n_bytes == 0 and _RULES.next_chunk(file, begin) is None
    extent = find_samples(
        file,
        layout,
        begin,
        None if is_unknown else claimed,
        _RULES,
        header_bytes=begin - start,
        is_whole=outer + 8 == file.size - start,
    )
    end = behind(file, extent.stop, _RULES, "AIFF")

    def opened() -> Sound:
        if kind != b"ima4":
            return pcm_sound(file, layout, extent)
        frames = extent.n_bytes // layout.frame_bytes * _IMA_FRAMES
        view, codecs = View(file, [(start, end)]), {"adpcm_ima_qt"}
        seconds, is_cut = frames / max(1, rate), extent.is_cut
        return open_media(view, "AIFF", "aiff", codecs, promised_s=seconds, is_cut=is_cut)

    return Part(end, opened)


def _chunks(file: File, start: int) -> tuple[bytes, tuple[int, int]]:
    """The content of COMM, and where that of SSND is."""
    common, data = b"", None
    offset = start + 12
    for _ in range(_MAX_CHUNKS):
        head = file.at(offset, 8)
        if len(head) < 8:
            break
        name, n_bytes = struct.unpack(">4sI", head)
        if name == b"COMM":
            common = file.at(offset + 8, min(n_bytes, 22))
        elif name == b"SSND":
            data = offset + 8, n_bytes
        if common and data:
            break
        offset += 8 + n_bytes + n_bytes % 2
    if len(common) < 18:
        raise ContainerError("corrupt", "the AIFF file has no common chunk; export it again")
    if data is None:
        raise ContainerError("truncated", "the AIFF file has no samples; copy or export it again")
    return common, data


def _layout(kind: bytes, channels: int, rate: int, bits: int) -> Layout:
    if kind in (b"NONE", b"twos", b"sowt", b"in24", b"in32"):
        n_bytes = (bits + 7) // 8
        endian: Literal["LITTLE", "BIG"] = "LITTLE" if kind == b"sowt" else "BIG"
        subtype = _PCM.get(n_bytes)
    else:
        subtype, n_bytes, endian = _TYPES.get(kind, (None, 0, "BIG"))
    if subtype is None:
        shown = kind.decode("ascii", "replace").strip()
        message = f"AIFF of the kind {shown!r} with {bits} bits is not accepted; export as PCM"
        raise ContainerError("unsupported", message)
    return Layout("AIFF", subtype, channels, rate, channels * n_bytes, endian)


def _extended(data: bytes) -> int:
    """An 80-bit float as a whole number; 0 of what is none that a rate could be."""
    exponent = (int.from_bytes(data[:2], "big") & 0x7FFF) - 16_383
    mantissa = int.from_bytes(data[2:10], "big")
    return round(mantissa * 2.0 ** (exponent - 63)) if 0 <= exponent < 63 else 0
