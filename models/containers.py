"""Audio containers: an open file -> its sample rate, its channels, and its samples in blocks.

The container is told by its first bytes alone. libsndfile reads FLAC, Ogg Vorbis, Ogg Opus, MP3
and the samples of WAV, whose headers are parsed here, so that no C library ever parses them; PyAV
(extra `media`) reads m4a and webm. libmpg123 inside libsndfile writes its own notes about damaged
MP3 frames to stderr.
"""

import io
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

FORMATS = ["WAV (PCM or float)", "FLAC", "Ogg Vorbis", "Ogg Opus", "MP3"]
MEDIA_FORMATS = ["m4a", "webm"]

_BLOCK_S = 1.0  # seconds a block, unless that would be more than
_BLOCK_BYTES = 1 << 20  # bytes of float32 in all channels together
_MAX_CHUNKS = 1_000  # RIFF chunks looked at
_STREAMED = 0xFFFF_FFFF  # the size that a writer leaves when it cannot seek back
_EXTENSIBLE = 0xFFFE  # the format tag that says: see the GUID
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_*, after the tag
_SUBTYPES = {  # libsndfile's words by the format tag and the bits of a sample
    1: {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"},
    3: {32: "FLOAT", 64: "DOUBLE"},
}
_OGG_PAGE_BYTES = 65_307  # the longest page there can be
_MP3_SLACK_BYTES = 4_096  # a frame or two, by which an estimated length may be short
_MEDIA_CODECS = {"aac", "alac", "flac", "mp3", "mp3float", "opus", "vorbis"}
_MEDIA_SLACK_S = 0.25  # containers count the codec's delay and padding in their durations


def accepted_formats() -> list[str]:
    """What this installation reads."""
    return FORMATS + (MEDIA_FORMATS if find_spec("av") else [])


class ContainerError(Exception):
    """A file that cannot be read; `models.audio.AudioError` says what the arguments mean."""

    def __init__(
        self,
        reason: Literal["empty", "unsupported", "corrupt", "truncated"],
        message: str,
        limit: float | None = None,
        observed: float | None = None,
        unit: str | None = None,
    ) -> None:
        super().__init__(reason, message, limit, observed, unit)


@dataclass(frozen=True)
class Sound:
    """An opened file, none of whose samples is decoded yet.

    Attributes:
        rate: Hz; as the header has it, however absurd.
        channels: count; likewise.
        frames: count; None where the header does not say or cannot be relied upon.
        blocks: (frames, channels) each; raises ContainerError where the samples break off.
        container: one of `accepted_formats`, in short.
        codec: how the samples are packed, in the words of libsndfile or FFmpeg.
        is_cut: the file ends before what its headers promise, as far as can be told from them.
    """

    rate: int
    channels: int
    frames: int | None
    blocks: Iterator[NDArray[np.float32]]
    container: str
    codec: str
    is_cut: bool = False


def open_sound(file: BinaryIO) -> Sound:
    """Open the decoder that the first bytes ask for.

    Raises:
        ContainerError: for anything that is wrong with the file.
    """
    head = file.read(12)
    if not head:
        raise ContainerError("empty", "the file holds no bytes; send one that holds audio")
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _wav(file)
    if head[:4] == b"OggS":
        return _ogg(file)
    if head[4:8] == b"ftyp":
        return _media(file, "m4a", "mov")
    if head[:4] == b"\x1aE\xdf\xa3":
        return _media(file, "webm", "matroska")
    start = _after_id3(file)
    head = _read_at(file, start, 4)
    if head == b"fLaC":
        return _sndfile(file, "FLAC")
    if _is_mp3_frame(head):
        return _mp3(file, start)
    names = ", ".join(accepted_formats())
    raise ContainerError("unsupported", f"the format is not recognised; accepted are {names}")


def _read_at(file: BinaryIO, offset: int, n_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(n_bytes)


def _size(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def _after_id3(file: BinaryIO, offset: int = 0) -> int:
    """The offset behind any ID3v2 tags that start at `offset`."""
    while (tag := _read_at(file, offset, 10))[:3] == b"ID3" and len(tag) == 10:
        a, b, c, d = (byte & 0x7F for byte in tag[6:])  # seven bits in each byte
        offset += 10 + (a << 21 | b << 14 | c << 7 | d)
    return offset


def _is_mp3_frame(head: bytes) -> bool:
    """Whether four bytes can be the header of an MPEG layer III frame."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return version != 1 and layer == 1 and head[2] >> 4 != 15 and head[2] >> 2 & 3 != 3


def _block_frames(rate: int, channels: int) -> int:
    return max(1, min(int(rate * _BLOCK_S), _BLOCK_BYTES // (4 * channels)))


def _stop(
    reason: Literal["corrupt", "truncated"], name: str, rate: int, frames: int, promised: int | None
) -> NoReturn:
    """Say where a stream broke off."""
    total = None if promised is None else promised / rate
    of = "" if total is None else f" of {total:.2f} s"
    how = "is damaged" if reason == "corrupt" else "ends"
    raise ContainerError(
        reason,
        f"the {name} stream {how} after {frames / rate:.2f} s{of}; copy or encode the file again",
        total,
        frames / rate,
        "s",
    )


# RIFF/WAVE and RF64


class _WavFormat(NamedTuple):
    subtype: str
    channels: int
    rate: int  # Hz
    frame_bytes: int


def _wav(file: BinaryIO) -> Sound:
    """Find the format and the samples, and describe them.

    Only PCM and float pass: ADPCM has corrupted the memory of decoders (CVE-2026-37555).
    """
    wav: _WavFormat | None = None
    long_bytes = _STREAMED  # the data chunk's size in an RF64 file
    for chunk, offset, n_bytes in _riff_chunks(file):
        if chunk == b"fmt " and wav is not None:
            raise ContainerError("corrupt", "the WAV file has two format chunks; export it again")
        if chunk == b"fmt ":
            wav = _wav_format(_read_at(file, offset, min(n_bytes, 40)))
        elif chunk == b"ds64":
            long_bytes = int.from_bytes(_read_at(file, offset + 8, 8), "little")
        elif chunk == b"data":
            if wav is None:
                message = "the WAV file has no format chunk before its data; export it again"
                raise ContainerError("corrupt", message)
            claimed = long_bytes if n_bytes == _STREAMED else n_bytes
            return _wav_data(file, wav, offset, claimed)
    raise ContainerError("truncated", "the WAV file has no data chunk; copy or export it again")


def _riff_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset of the content and length in bytes of each chunk that starts in the file."""
    offset = 12
    for _ in range(_MAX_CHUNKS):
        head = _read_at(file, offset, 8)
        if len(head) < 8:
            return
        chunk, n_bytes = struct.unpack("<4sI", head)
        yield chunk, offset + 8, n_bytes
        offset += 8 + n_bytes + n_bytes % 2


def _wav_format(chunk: bytes) -> _WavFormat:
    if len(chunk) < 16:
        message = "the WAV file's format chunk is too short; copy or export it again"
        raise ContainerError("corrupt", message)
    tag, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == _EXTENSIBLE and chunk[26:40] == _GUID_TAIL:
        tag = int.from_bytes(chunk[24:26], "little")
    subtype = _SUBTYPES.get(tag, {}).get(bits)
    if subtype is None:
        raise ContainerError(
            "unsupported",
            f"WAV format tag {tag:#06x} with {bits} bits a sample is not accepted; export as PCM "
            "of 8, 16, 24 or 32 bits or as float of 32 or 64 bits",
        )
    if frame_bytes != channels * bits // 8:
        raise ContainerError(
            "corrupt",
            f"the WAV file claims {frame_bytes} bytes a frame for {channels} channels of {bits} "
            "bits; export it again",
        )
    return _WavFormat(subtype, channels, rate, frame_bytes)


def _wav_data(file: BinaryIO, wav: _WavFormat, offset: int, claimed: int) -> Sound:
    """Describe the samples at `offset`, of which the header claims so many bytes."""
    size = _size(file)
    outer_bytes = int.from_bytes(_read_at(file, 4, 4), "little")
    if claimed == 0 and outer_bytes + 8 == size:
        held = 0  # empty, and knows it
    elif claimed in (0, _STREAMED):
        held = claimed = size - offset  # its writer could not seek back
    else:
        held = min(claimed, size - offset)
    frame_bytes = max(1, wav.frame_bytes)  # no channels is refused later
    held, claimed = held // frame_bytes, claimed // frame_bytes
    blocks = _wav_blocks(file, wav, offset, held, claimed)
    return Sound(wav.rate, wav.channels, held, blocks, "WAV", wav.subtype, held < claimed)


def _wav_blocks(
    file: BinaryIO, wav: _WavFormat, offset: int, held: int, claimed: int
) -> Iterator[NDArray[np.float32]]:
    if held < claimed:  # no need to decode what is there
        _stop("truncated", "WAV", wav.rate, held, claimed)
    file.seek(offset)
    step = _block_frames(wav.rate, wav.channels)
    for start in range(0, held, step):
        n_bytes = min(step, held - start) * wav.frame_bytes
        raw = file.read(n_bytes)
        if len(raw) < n_bytes:  # the file has shrunk under our hands
            _stop("truncated", "WAV", wav.rate, start, held)
        with sf.SoundFile(  # headerless, so that libsndfile does nothing but convert
            io.BytesIO(raw), "r", wav.rate, wav.channels, wav.subtype, "LITTLE", "RAW"
        ) as samples:
            yield samples.read(dtype="float32", always_2d=True)


# FLAC, Ogg and MP3 through libsndfile


class _Forward(sf.SoundFile):  # type: ignore[misc]
    """A sound file that is only read forwards.

    soundfile seeks after every read of a seekable file. That is slow, disturbs the MP3 decoder's
    bit reservoir, and fails on a FLAC whose header leaves the length open.
    """

    def seekable(self) -> bool:
        return False


def _sndfile(file: BinaryIO, name: str, *, trust_length: bool = True) -> Sound:
    """Open with libsndfile; `name` is the format that it has to find."""
    file.seek(0)
    try:
        sound = _Forward(file)
    except (sf.SoundFileError, ValueError, TypeError) as error:
        message = f"the {name} headers cannot be read; copy or encode the file again"
        raise ContainerError("corrupt", message) from error
    if sound.format != name:
        message = f"the {name} file is something else inside; encode it again"
        raise ContainerError("corrupt", message)
    known = trust_length and sound.frames < 2**62  # an open length reads as 2**63 - 1
    frames = sound.frames if known else None
    blocks = _sndfile_blocks(sound, name, frames)
    container = name.title() if name == "OGG" else name
    return Sound(sound.samplerate, sound.channels, frames, blocks, container, sound.subtype)


def _sndfile_blocks(sound: Any, name: str, promised: int | None) -> Iterator[NDArray[np.float32]]:
    step = _block_frames(sound.samplerate, sound.channels)
    frames = 0
    with sound:
        while True:
            try:
                block = sound.read(step, dtype="float32", always_2d=True)
            except sf.SoundFileError:
                _stop("corrupt", name, sound.samplerate, max(frames, sound.tell()), promised)
            if not len(block):
                break
            frames += len(block)
            yield block
    if promised is not None and frames < promised:
        _stop("truncated", name, sound.samplerate, frames, promised)


def _ogg(file: BinaryIO) -> Sound:
    """Ogg Vorbis or Opus; libsndfile ignores a last page that is cut, so that is seen to here."""
    first = _read_at(file, 0, _OGG_PAGE_BYTES)
    packet = first[27 + first[26] :] if len(first) > 26 else b""
    if not packet.startswith((b"\x01vorbis", b"OpusHead")):
        message = "only Vorbis and Opus are accepted inside Ogg; encode as either"
        raise ContainerError("unsupported", message)
    is_cut = _ends_inside_page(file)
    sound = _sndfile(file, "OGG")
    return replace(sound, blocks=_ogg_blocks(sound, is_cut), is_cut=is_cut)


def _ends_inside_page(file: BinaryIO) -> bool:
    size = _size(file)
    tail = _read_at(file, max(0, size - _OGG_PAGE_BYTES), _OGG_PAGE_BYTES)
    start = tail.rfind(b"OggS\x00")
    if start < 0:
        return False
    page = tail[start:]
    n_segments = page[26] if len(page) > 26 else 0
    return len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments])


def _ogg_blocks(sound: Sound, is_cut: bool) -> Iterator[NDArray[np.float32]]:
    frames = 0
    for block in sound.blocks:
        frames += len(block)
        yield block
    if is_cut:
        _stop("truncated", "Ogg", sound.rate, frames, None)


def _mp3(file: BinaryIO, start: int) -> Sound:
    """MP3; without a Xing header its length is only an estimate from the first frames' bit rate."""
    first = _read_at(file, start, 4_096)
    exact = any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))
    sound = _sndfile(file, "MP3", trust_length=exact)
    return replace(sound, blocks=_mp3_blocks(sound, file))


def _mp3_blocks(sound: Sound, file: BinaryIO) -> Iterator[NDArray[np.float32]]:
    """Refuse the end of a stream that libsndfile would silently leave unread.

    It stops at its estimate, which is short where the bit rate varies or MP3 files were joined.
    """
    yield from sound.blocks
    position = file.tell()
    unread = _size(file) - position
    next_frame = _read_at(file, _after_id3(file, position), 4)
    if unread > _MP3_SLACK_BYTES and _is_mp3_frame(next_frame):
        raise ContainerError(
            "unsupported",
            f"the MP3 holds {unread} bytes beyond its stated length; encode it again in one piece",
            0,
            unread,
            "bytes",
        )


# m4a and webm through PyAV


def _media(file: BinaryIO, name: str, demuxer: str) -> Sound:
    """The first audio track, by FFmpeg: the demuxer is forced, the codec one of a short list."""
    try:
        import av
    except ImportError as error:
        others = ", ".join(FORMATS)
        message = f"{name} needs PyAV: pip install 'viola-audio[media]', or send {others}"
        raise ContainerError("unsupported", message) from error
    file.seek(0)
    try:
        container = av.open(file, format=demuxer, metadata_errors="ignore", io_open=_refuse)
    except (av.FFmpegError, ValueError, RuntimeError) as error:
        message = f"the {name} headers cannot be read; copy or encode the file again"
        raise ContainerError("corrupt", message) from error
    track = next(iter(container.streams.audio), None)
    if track is None:
        raise ContainerError("empty", f"the {name} file holds no audio track; send one that does")
    if track.codec_context is None or track.codec_context.name not in _MEDIA_CODECS:
        message = f"the codec inside the {name} file is not accepted; encode as AAC or Opus"
        raise ContainerError("unsupported", message)
    codec = str(track.codec_context.name)
    seconds = _media_seconds(container, track)
    rate, channels = track.rate or 0, track.channels  # what is unknown is refused as 0 Hz
    frames = None if seconds is None else int(seconds * rate)
    blocks = _media_blocks(container, track, name, rate, channels, frames)
    return Sound(rate, channels, frames, blocks, name, codec)


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise ValueError("an audio file may not refer to other files")


def _media_seconds(container: Any, track: Any) -> float | None:
    """The duration that the headers promise; beside a video the container's may be the video's."""
    if track.duration is not None:
        return float(track.duration * track.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1e6)  # AV_TIME_BASE
    return None


def _media_blocks(
    container: Any, track: Any, name: str, rate: int, channels: int, promised: int | None
) -> Iterator[NDArray[np.float32]]:
    """Decode; the track's own attributes follow the stream, hence the arguments.

    Samples are interleaved before PyAV hands them out: it reads beyond the planes of a planar frame
    of eight channels or more.
    """
    import av

    interleave = av.AudioResampler(format="flt", frame_size=_block_frames(rate, channels))
    frames = 0
    try:
        for frame in itertools.chain(container.decode(track), [None]):  # None: flush
            if frame is not None:
                if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                    raise ValueError("the track changes its rate or its channels")
                frames += frame.samples
            for packed in interleave.resample(frame):
                yield packed.to_ndarray().reshape(-1, channels)
    except (av.FFmpegError, ValueError, RuntimeError):
        _stop("corrupt", name, rate, frames, promised)
    finally:
        container.close()
    if promised is not None and frames < promised - _MEDIA_SLACK_S * rate:
        _stop("truncated", name, rate, frames, promised)
