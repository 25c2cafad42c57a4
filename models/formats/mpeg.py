"""MP3 and AAC in ADTS: a walk over the frames tells what is there before a decoder is asked.

libmpg123 ends where its header, or its estimate of one, says; so it is given a header that is
right. https://www.codeproject.com/Articles/8295/MPEG-Audio-Frame-Header describes Xing and VBRI.
"""

from dataclasses import dataclass, field

from models.formats.file import File, View
from models.formats.frames import HEAD_BYTES, Frame, find_stream, frame_at
from models.formats.magic import kind_at
from models.formats.media import open_media
from models.formats.sndfile import open_sndfile
from models.formats.sound import ContainerError, Part, Sound
from models.formats.tags import after_padding

_MARKED_BYTES = 44  # of a frame, in which a Xing, Info or VBRI mark lies
_XING, _VBRI = (b"Xing", b"Info"), b"VBRI"
_LAME_BYTES = 144  # behind a Xing mark: flags, counts, table, LAME's own
_LAME_DELAYS = 141  # three bytes there: twelve bits of delay, twelve of padding
_RESYNC_BYTES = 1 << 20  # of something else that is searched for the next frame
_EDGE_FRAMES = 3  # that a decoder may leave out where a stream was cut from another


@dataclass
class _Run:
    """Frames of one stream in a row.

    Attributes:
        first: the first frame.
        head: its bytes.
        stretches: where the frames are.
    """

    first: Frame
    head: bytes
    stretches: list[tuple[int, int]] = field(default_factory=list)
    n_frames: int = 0

    def add(self, offset: int, n_bytes: int) -> None:
        """Take in the next frame."""
        if self.stretches and self.stretches[-1][1] == offset:
            self.stretches[-1] = (self.stretches[-1][0], offset + n_bytes)
        else:
            self.stretches.append((offset, offset + n_bytes))
        self.n_frames += 1


def read_adts(file: File, start: int) -> Part:
    """The AAC stream that begins at `start`."""
    run, stop = _walk(file, start)
    _check(run, "AAC")
    seconds = run.n_frames * run.first.samples / run.first.rate
    view = View(file, run.stretches)
    return Part(
        stop,
        lambda: open_media(view, "AAC", "aac", {"aac"}, promised_s=seconds, slack_s=0.1),
    )


def read_mp3(file: File, start: int) -> Part:
    """The MP3 stream that begins at `start`."""
    run, stop = _walk(file, start)
    return Part(stop, lambda: _mp3(file, run))


def _check(run: _Run, name: str) -> None:
    if not run.n_frames:
        message = f"the {name} stream ends inside its first frame; copy the file again"
        raise ContainerError("truncated", message)


def _walk(file: File, start: int) -> tuple[_Run, int]:
    """The frames of one stream, and the offset of what follows.

    Tags, padding and damage between frames are stepped over; another rate, other channels or the
    header of another file end the stream.
    """
    head = file.at(start, _MARKED_BYTES)
    first = frame_at(head)
    assert first is not None
    run = _Run(first, head)
    offset = start
    while offset < file.size:
        head = file.at(offset, _MARKED_BYTES)
        frame = frame_at(head)
        if frame is not None and frame.stream == first.stream:
            if offset + frame.n_bytes > file.size:
                _warn_of_a_cut(file, run)
                return run, file.size
            if run.n_frames and _mark(head) is not None:
                return run, offset
            run.add(offset, frame.n_bytes)
            offset += frame.n_bytes
            continue
        behind = after_padding(file, offset)
        if behind == offset:
            following = _resynced(file, offset, run)
            if following is None or following == offset:
                return run, offset
            behind = following
        offset = behind
    return run, min(offset, file.size)


def _resynced(file: File, offset: int, run: _Run) -> int | None:
    """Where the next stream or file begins behind something that is no frame."""
    if kind_at(file, offset) is not None:
        return offset
    found = find_stream(file, offset, offset + _RESYNC_BYTES)
    if found is not None:
        at_s = run.n_frames * run.first.samples / run.first.rate
        file.warn(
            f"{found - offset} bytes after {at_s:.2f} s are no audio frames and were skipped; if "
            "the file is damaged there, something is missing."
        )
    return found


def _warn_of_a_cut(file: File, run: _Run) -> None:
    at_s = run.n_frames * run.first.samples / run.first.rate
    file.warn(f"The stream ends inside a frame after {at_s:.2f} s: the file may have been cut.")


def _mark(head: bytes) -> int | None:
    """Where in a frame a Xing, Info or VBRI mark begins, if it is one that holds no sound."""
    side = (9 if head[3] >> 6 == 3 else 17) if head[1] >> 3 & 3 != 3 else None
    side = side or (17 if head[3] >> 6 == 3 else 32)
    crc = 0 if head[1] & 1 else 2
    for place in {4 + side, 4 + side + crc}:
        if head[place : place + 4] in _XING:
            return place
    return 36 if head[36:40] == _VBRI else None


def _mp3(file: File, run: _Run) -> Sound:
    """Open with a header that tells how many frames there are."""
    _check(run, "MP3")
    place = _mark(run.head)
    n_sound = run.n_frames - (place is not None)
    info = file.at(run.stretches[0][0], run.first.n_bytes)
    told = _told(info, place)
    least = (n_sound - _EDGE_FRAMES) * run.first.samples / run.first.rate
    rest = _without_first(run) if place is not None else run.stretches
    if told is not None and told > n_sound + 1:
        view = View(file, run.stretches)  # cut short, as libsndfile will find
    elif told == n_sound:
        view, least = View(file, run.stretches), least - _trimmed(info, place) / run.first.rate
    else:
        if told is not None and n_sound - told > 1:
            seconds = [n * run.first.samples / run.first.rate for n in (told, n_sound)]
            file.warn(
                f"The MP3 header counts {seconds[0]:.2f} s, and {seconds[1]:.2f} s are there: all "
                "of it was read."
            )
        view = View(file, rest, _info_frame(run, n_sound))
    return open_sndfile(view, "MP3", max(0.0, least))


def _without_first(run: _Run) -> list[tuple[int, int]]:
    start, stop = run.stretches[0]
    return [(start + run.first.n_bytes, stop), *run.stretches[1:]]


def _told(info: bytes, place: int | None) -> int | None:
    """How many frames a Xing header counts."""
    if place is None or info[place : place + 4] not in _XING or len(info) < place + 12:
        return None
    return int.from_bytes(info[place + 8 : place + 12], "big") if info[place + 7] & 1 else None


def _trimmed(info: bytes, place: int | None) -> int:
    """Samples that LAME's header says are no part of the recording."""
    if place is None or len(info) < place + _LAME_BYTES:
        return 0
    delays = int.from_bytes(info[place + _LAME_DELAYS : place + _LAME_DELAYS + 3], "big")
    return (delays >> 12) + (delays & 0xFFF)


def _info_frame(run: _Run, n_frames: int) -> bytes:
    """A frame without sound that says how many follow, like the first one otherwise."""
    for third in (run.head[2] & 0x0F | rate << 4 for rate in (*range(run.head[2] >> 4, 15), 14)):
        head = bytes((0xFF, run.head[1] | 1, third, run.head[3]))  # 1: no checksum
        frame = frame_at(head.ljust(HEAD_BYTES, b"\0"))
        if frame is not None and frame.n_bytes >= 64:
            break
    assert frame is not None
    body = head + bytes((_mark_place(head)) - 4) + b"Info" + (1).to_bytes(4, "big")
    return (body + n_frames.to_bytes(4, "big")).ljust(frame.n_bytes, b"\0")


def _mark_place(head: bytes) -> int:
    is_mono, is_first = head[3] >> 6 == 3, head[1] >> 3 & 3 == 3
    return 4 + ((17 if is_mono else 32) if is_first else (9 if is_mono else 17))
