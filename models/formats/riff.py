"""RIFF/WAVE, RF64, BW64 and Sony's W64: PCM, float, A-law and mu-law; ADPCM and GSM by FFmpeg.

https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html. No C library parses a header
of these: for what FFmpeg decodes, a header is written anew.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from models.formats.file import File, View
from models.formats.magic import W64_RIFF
from models.formats.media import open_media
from models.formats.pcm import (
    PLACEHOLDER,
    STREAMED,
    Extent,
    Layout,
    Rules,
    behind,
    chunk_rule,
    find_samples,
    pcm_sound,
)
from models.formats.sound import ContainerError, Part, Sound

_MAX_CHUNKS = 1_000  # looked at
_EXTENSIBLE = 0xFFFE  # the format tag that says: see the GUID
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_*, after the tag
_PCM, _ADPCM_MS, _FLOAT, _ALAW, _ULAW, _ADPCM_IMA, _GSM = 1, 2, 3, 6, 7, 0x11, 0x31
_SUBTYPES = {  # libsndfile's words by the format tag and the bytes of a sample
    _PCM: {1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"},
    _FLOAT: {4: "FLOAT", 8: "DOUBLE"},
    _ALAW: {1: "ALAW"},
    _ULAW: {1: "ULAW"},
}
_CODECS = {_ADPCM_MS: "adpcm_ms", _ADPCM_IMA: "adpcm_ima_wav", _GSM: "gsm_ms"}  # FFmpeg's words
_MS_COEFFICIENTS = (256, 0, 512, -256, 0, 0, 192, 64, 240, 0, 460, -208, 392, -232)
_PEEKED = 1 << 20  # bytes looked at to tell how 24 bits lie in 32

_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of all other chunks, after four letters


@dataclass(frozen=True)
class Packed:
    """Blocks of a compressed format, each of which holds the same number of frames."""

    codec: str
    tag: int
    channels: int
    rate: int
    block_bytes: int
    block_frames: int


def is_wav(head: bytes) -> bool:
    """Whether bytes begin a WAV file."""
    return head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def read_wav(file: File, start: int) -> Part:
    """The WAV file that begins at `start`."""
    found = _Chunks("WAV")
    outer = int.from_bytes(file.at(start + 4, 4), "little")
    long_bytes: int | None = None  # the data chunk's size in an RF64 file
    for name, offset, n_bytes in _riff_chunks(file, start):
        if name == b"ds64":
            outer = int.from_bytes(file.at(offset, 8), "little")
            long_bytes = int.from_bytes(file.at(offset + 8, 8), "little")
        elif name == b"data":
            claimed: int | None = n_bytes
            if n_bytes == STREAMED:
                claimed = long_bytes
            is_whole = outer + 8 == file.size - start
            rules = _WAV_RULES if long_bytes is None else replace(_WAV_RULES, wraps=False)
            if claimed == 0 and not is_whole and rules.next_chunk(file, offset) is None:
                claimed = None  # its writer could not seek back
            extent = find_samples(
                file,
                found.for_words,
                offset,
                claimed,
                rules,
                header_bytes=offset - start,
                is_whole=is_whole,
            )
            return _part(file, found, extent, rules)
        else:
            found.add(file, name, offset, n_bytes)
    raise ContainerError("truncated", "the WAV file has no data chunk; copy or export it again")


def read_w64(file: File, start: int) -> Part:
    """The W64 file that begins at `start`: chunks named by GUIDs, sizes of 64 bits."""
    found = _Chunks("W64")
    offset = start + 40
    for _ in range(_MAX_CHUNKS):
        head = file.at(offset, 24)
        n_bytes = int.from_bytes(head[16:24], "little")
        if len(head) < 24 or head[4:16] != _W64_TAIL or n_bytes < 24:
            break
        if head[:4] == b"data":
            claimed = None if n_bytes >= 2**62 else n_bytes - 24
            extent = find_samples(file, found.for_words, offset + 24, claimed, _W64_RULES)
            return _part(file, found, extent, _W64_RULES)
        found.add(file, head[:4], offset + 24, n_bytes - 24)
        offset += n_bytes + -n_bytes % 8
    raise ContainerError("truncated", "the W64 file has no data chunk; copy or export it again")


class _Chunks:
    """What the chunks before the samples say."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.format: Layout | Packed | None = None
        self.fact: int | None = None

    def add(self, file: File, name: bytes, offset: int, n_bytes: int) -> None:
        """Take in a chunk; most do not matter."""
        if name == b"fmt " and self.format is not None:
            message = f"the {self.container} file has two format chunks; export it again"
            raise ContainerError("corrupt", message)
        if name == b"fmt ":
            self.format = _format(file.at(offset, min(n_bytes, 64)), self.container)
        elif name == b"fact" and n_bytes >= 4:
            self.fact = int.from_bytes(file.at(offset, 4), "little")

    @property
    def for_words(self) -> Layout:
        """The layout; of compressed blocks, one that turns bytes into seconds for a message."""
        if self.format is None:
            message = f"the {self.container} file has no format chunk before its data"
            raise ContainerError("corrupt", message + "; export it again")
        if isinstance(self.format, Layout):
            return self.format
        packed = self.format
        rate = packed.rate // max(1, packed.block_frames)
        return Layout(self.container, "", packed.channels, rate, packed.block_bytes)


def _part(file: File, found: _Chunks, extent: Extent, rules: Rules) -> Part:
    stop = behind(file, extent.stop, rules, found.container)
    layout = found.format

    def opened() -> Sound:
        if isinstance(layout, Packed):
            return _packed_sound(file, found, layout, extent)
        assert layout is not None
        return pcm_sound(file, _right_justified(file, layout, extent), extent)

    return Part(stop, opened)


def _riff_chunks(file: File, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset of the content and length in bytes of each chunk that starts in the file."""
    offset = start + 12
    for _ in range(_MAX_CHUNKS):
        head = file.at(offset, 8)
        if len(head) < 8:
            return
        name, n_bytes = struct.unpack("<4sI", head)
        yield name, offset + 8, n_bytes
        offset += 8 + n_bytes
        unpadded = file.at(offset, 4)
        if n_bytes % 2 and unpadded not in (b"fmt ", b"data", b"fact", b"LIST"):
            offset += 1


def _format(chunk: bytes, container: str) -> Layout | Packed:
    if len(chunk) < 14:
        message = f"the {container} file's format chunk is too short; copy or export it again"
        raise ContainerError("corrupt", message)
    tag, channels, rate, _, frame_bytes = struct.unpack("<HHIIH", chunk[:14])
    bits = int.from_bytes(chunk[14:16], "little")
    if tag == _EXTENSIBLE and chunk[26:40] == _GUID_TAIL:
        tag = int.from_bytes(chunk[24:26], "little")
    elif tag in _CODECS:
        return _packed(chunk, tag, channels, rate, frame_bytes, bits)
    return _layout(container, tag, channels, rate, frame_bytes, bits)


def _layout(
    container: str, tag: int, channels: int, rate: int, frame_bytes: int, bits: int
) -> Layout:
    """PCM and its like; where a sample takes more bytes than its bits need, the bytes count."""
    sample_bytes, rest = divmod(frame_bytes, channels) if channels else (bits // 8, 0)
    subtype = _SUBTYPES.get(tag, {}).get(sample_bytes)
    known = _SUBTYPES.get(tag, {}).get((bits + 7) // 8)
    if known is None or (bits % 8 and (tag != _PCM or not frame_bytes)):
        raise ContainerError(
            "unsupported",
            f"{container} format tag {tag:#06x} with {bits} bits a sample is not accepted; export "
            "as PCM of 8, 16, 24 or 32 bits or as float of 32 or 64 bits",
        )
    if rest or subtype is None or bits > 8 * sample_bytes or (tag != _PCM and subtype != known):
        raise ContainerError(
            "corrupt",
            f"the {container} file claims {frame_bytes} bytes a frame for {channels} channels of "
            f"{bits} bits; export it again",
        )
    codec = f"{known} in {sample_bytes} bytes" if subtype != known else ""
    gain = 2.0**8 if codec == "PCM_24 in 4 bytes" else 1.0  # if they lie on the right
    return Layout(container, subtype, channels, rate, frame_bytes, gain=gain)


def _right_justified(file: File, layout: Layout, extent: Extent) -> Layout:
    """24 bits in 32: most writers fill the upper three bytes, ALSA's the lower three."""
    if layout.gain == 1:
        return layout
    raw = file.at(extent.start, min(extent.n_bytes, _PEEKED) // 4 * 4)
    values = np.frombuffer(raw, "<i4")
    small = (values >= -(1 << 23)).all() and (values < 1 << 23).all()
    return layout if small and (values & 0xFF).any() else replace(layout, gain=1.0)


# Compressed blocks


def _packed(
    chunk: bytes, tag: int, channels: int, rate: int, block_bytes: int, bits: int
) -> Packed:
    codec = _CODECS[tag]
    if tag == _GSM:
        fits, frames = channels == 1 and block_bytes == 65, 320
    elif tag == _ADPCM_IMA:
        fits = bits == 4 and channels > 0 and block_bytes >= 8 * channels
        fits = fits and block_bytes % (4 * channels) == 0
        frames = 1 + 2 * block_bytes // max(1, channels) - 8
    else:
        table = struct.pack("<14h", *_MS_COEFFICIENTS)
        fits = bits == 4 and channels in (1, 2) and block_bytes > 7 * channels
        fits = fits and chunk[22:50] == table
        frames = 2 + 2 * block_bytes // max(1, channels) - 14
    if not fits:
        message = f"the WAV file claims {codec} in blocks of {block_bytes} bytes, {channels} "
        raise ContainerError("unsupported", message + f"channels, {bits} bits; export as PCM")
    return Packed(codec, tag, channels, rate, block_bytes, frames)


def _packed_sound(file: File, found: _Chunks, packed: Packed, extent: Extent) -> Sound:
    """Let FFmpeg decode the blocks behind a header of our own."""
    n_bytes = extent.n_bytes
    frames = n_bytes // packed.block_bytes * packed.block_frames
    claimed = (extent.claimed - extent.start) // packed.block_bytes * packed.block_frames
    if n_bytes >= PLACEHOLDER:
        message = f"{n_bytes} bytes of {packed.codec} exceed the limit of {PLACEHOLDER}; cut it"
        raise ContainerError("unsupported", message, PLACEHOLDER, n_bytes, "bytes")
    if found.fact is not None and frames - packed.block_frames < found.fact < frames:
        frames = found.fact  # the last block is padded
    view = View(file, [(extent.start, extent.stop)], _header(packed, n_bytes))
    return open_media(
        view,
        found.container,
        "wav",
        {packed.codec},
        frames=None if extent.is_cut else frames,
        promised_s=claimed / max(1, packed.rate),
        slack_s=0.0,
        is_cut=extent.is_cut,
    )


def _header(packed: Packed, n_bytes: int) -> bytes:
    bits = 0 if packed.tag == _GSM else 4
    extra = struct.pack("<H", packed.block_frames)
    if packed.tag == _ADPCM_MS:
        extra += struct.pack("<H14h", 7, *_MS_COEFFICIENTS)
    bytes_s = packed.rate * packed.block_bytes // packed.block_frames
    fields = (packed.tag, packed.channels, packed.rate, bytes_s, packed.block_bytes, bits)
    layout = struct.pack("<HHIIHHH", *fields, len(extra)) + extra
    chunks = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout
    chunks += b"data" + struct.pack("<I", n_bytes)
    return b"RIFF" + struct.pack("<I", len(chunks) + n_bytes) + chunks


def _next_w64(file: File, offset: int) -> int | None:
    offset += -offset % 8
    head = file.at(offset, 24)
    n_bytes = int.from_bytes(head[16:24], "little")
    fits = len(head) == 24 and head[4:16] == _W64_TAIL and 24 <= n_bytes <= file.size - offset
    return min(offset + n_bytes + -n_bytes % 8, file.size) if fits else None


_WAV_RULES = Rules(chunk_rule("<"), b"data", b"RIFF", is_wav)
_W64_RULES = Rules(
    _next_w64, b"data" + _W64_TAIL, W64_RIFF, lambda head: True, wraps=False, align=8
)
