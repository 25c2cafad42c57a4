"""What FFmpeg reads for us, through PyAV (extra `media`): m4a, webm, WMA, AAC, AMR, ALAC, ADPCM.

The demuxer is forced and the codec one of a short list; no file may refer to another one.
"""

import itertools
from collections.abc import Iterator, Set
from typing import Any, NoReturn

from models.formats.file import File, View
from models.formats.sound import (
    AGAIN,
    ContainerError,
    Floats,
    Part,
    Sound,
    block_frames,
    stop,
)

_MOVIE_CODECS = {"aac", "alac", "flac", "mp3", "mp3float", "opus", "vorbis", "amrnb", "amrwb"}
_WMA_CODECS = {"wmav1", "wmav2", "wmapro"}
_SKIP_MANUAL = 1 << 29  # AV_CODEC_FLAG2_SKIP_MANUAL: whoever calls trims
_SLACK_S = 0.25  # containers count the codec's delay and padding in their durations
_MAX_BOXES = 100_000
_BOXES = frozenset(  # at the top of an MPEG-4 or QuickTime file
    b"ftyp moov mdat free skip wide udta uuid meta moof mfra sidx styp ssix emsg prft pdin pnot "
    b"PICT junk".split()
)
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
EBML = b"\x1aE\xdf\xa3"
_SEGMENT = b"\x18S\x80g"


def open_media(
    view: View,
    name: str,
    demuxer: str,
    codecs: Set[str],
    *,
    file: File | None = None,
    frames: int | None = None,
    promised_s: float | None = None,
    slack_s: float = _SLACK_S,
    is_cut: bool = False,
    trims: bool = True,
) -> Sound:
    """The first audio track.

    Args:
        view: the stream.
        name: the container, for people.
        demuxer: FFmpeg's word for it.
        codecs: those that are accepted.
        file: takes a warning where there is more than one track.
        frames: how many there are exactly; what a codec adds beyond is left out.
        promised_s: what a walk has found to be there; None: what the headers say.
        slack_s: by which what comes out may be short of that.
        is_cut: whether the walk has found that the end is missing.
        trims: whether FFmpeg leaves out what the container calls padding.
    """
    track, container = _track(view, name, demuxer, codecs)
    if file is not None and len(container.streams.audio) > 1:
        n = len(container.streams.audio)
        file.warn(f"The {name} file holds {n} audio tracks; the first was read.")
    codec = str(track.codec_context.name)
    if not trims:
        track.codec_context.flags2 |= _SKIP_MANUAL
    if promised_s is None:
        promised_s = _media_seconds(container, track)
    rate, channels = track.rate or 0, track.channels  # what is unknown is refused as 0 Hz
    promised = None if promised_s is None else int(promised_s * rate)
    promised = promised if frames is None else frames
    least = None if promised is None else promised - slack_s * rate

    def decoded(first: int) -> Iterator[Floats]:
        n_frames = 0
        for block in _blocks(container, track, name, rate, channels, promised):
            n_frames += len(block)
            excess = 0 if frames is None else max(0, n_frames - frames)
            if len(block) > excess:
                yield block[: len(block) - excess]
        if is_cut or (least is not None and n_frames < least):
            stop("truncated", name, rate, n_frames, promised)

    return Sound(rate, channels, promised, decoded, name, codec, is_cut)


def _track(view: View, name: str, demuxer: str, codecs: Set[str]) -> tuple[Any, Any]:
    try:
        import av
    except ImportError as error:
        message = f"{name} needs PyAV: pip install 'viola-audio[media]', or send WAV or FLAC"
        raise ContainerError("unsupported", message) from error
    try:
        container = av.open(view, format=demuxer, metadata_errors="ignore", io_open=_refuse)
    except (av.FFmpegError, ValueError, RuntimeError) as error:
        message = f"the {name} headers cannot be read; {AGAIN}"
        raise ContainerError("corrupt", message) from error
    track = next(iter(container.streams.audio), None)
    if track is None:
        raise ContainerError("empty", f"the {name} file holds no audio track; send one that does")
    if track.codec_context is None or track.codec_context.name not in codecs:
        message = f"the codec inside the {name} file is not accepted; encode as AAC or Opus"
        raise ContainerError("unsupported", message)
    return track, container


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise ValueError("an audio file may not refer to other files")


def _media_seconds(container: Any, track: Any) -> float | None:
    """The duration that the headers promise; beside a video the container's may be the video's."""
    if track.duration is not None:
        return float(track.duration * track.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1e6)  # AV_TIME_BASE
    return None


def _blocks(
    container: Any, track: Any, name: str, rate: int, channels: int, promised: int | None
) -> Iterator[Floats]:
    """Decode; the track's own attributes follow the stream, hence the arguments.

    Samples are interleaved before PyAV hands them out: it reads beyond the planes of a planar frame
    of eight channels or more.
    """
    import av

    interleave = av.AudioResampler(format="flt", frame_size=block_frames(rate, channels))
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
        stop("corrupt", name, rate, frames, promised)
    finally:
        container.close()


# MPEG-4 and QuickTime


def read_movie(file: File, start: int) -> Part:
    """The m4a, mp4 or 3gp that begins at `start`: boxes up to the next `ftyp`."""
    offset, is_cut = start, False
    for _ in range(_MAX_BOXES):
        head = file.at(offset, 16)
        kind, n_bytes = head[4:8], int.from_bytes(head[:4], "big")
        if len(head) < 8 or kind not in _BOXES or (kind == b"ftyp" and offset > start):
            break
        if n_bytes == 1:
            n_bytes = int.from_bytes(head[8:16], "big")
        if n_bytes == 0 or n_bytes > file.size - offset:
            is_cut, offset = n_bytes != 0, file.size
            break
        if n_bytes < 8:
            break
        offset += n_bytes
    view = View(file, [(start, offset)])
    return Part(
        offset,
        lambda: open_media(view, "m4a", "mov", _MOVIE_CODECS, file=file, is_cut=is_cut),
    )


# Matroska and WebM


def read_matroska(file: File, start: int) -> Part:
    """The webm or mka that begins at `start`: one EBML header and its segment."""
    end, is_cut = file.size, False
    behind = _element(file, start, EBML)
    segment = None if behind is None else _element(file, behind, _SEGMENT)
    if segment is not None and segment > file.size:
        is_cut = True
    offset = start + 4
    while (offset := file.find(EBML, offset)) >= 0:
        if is_ebml(file, offset):
            end, is_cut = offset, False
            break
        offset += 1
    view = View(file, [(start, end)])
    return Part(
        end,
        lambda: open_media(view, "webm", "matroska", _MOVIE_CODECS, file=file, is_cut=is_cut),
    )


def is_ebml(file: File, offset: int) -> bool:
    """Whether an EBML header begins there, with one of the elements that it must have."""
    head = file.at(offset, 16)
    length = 9 - (head[4] if len(head) > 4 else 0).bit_length()
    first = head[4 + length : 6 + length]
    return head[:4] == EBML and first in (b"\x42\x86", b"\x42\xf7", b"\x42\x82", b"\x42\x87")


def _element(file: File, offset: int, wanted: bytes) -> int | None:
    """The offset behind an element; None where it is another one, or does not know its size."""
    head = file.at(offset, 12)
    if head[:4] != wanted or len(head) < 6 or head[4] == 0:
        return None
    length = 9 - head[4].bit_length()
    size = int.from_bytes(head[4 : 4 + length], "big") & (1 << 7 * length) - 1
    return None if size == (1 << 7 * length) - 1 else offset + 4 + length + size


# Windows Media


def read_asf(file: File, start: int) -> Part:
    """The WMA that begins at `start`."""
    end = file.find(ASF, start + len(ASF))
    end = file.size if end < 0 else end
    view = View(file, [(start, end)])
    return Part(end, lambda: open_media(view, "WMA", "asf", _WMA_CODECS, file=file))
