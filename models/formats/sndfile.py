"""Compressed streams through libsndfile: FLAC, Ogg Vorbis, Ogg Opus and MP3.

libmpg123 inside libsndfile writes its own notes about damaged MP3 frames to stderr.
"""

from collections.abc import Iterator
from typing import Any

import soundfile as sf

from models.formats.file import View
from models.formats.sound import AGAIN, ContainerError, Floats, Sound, block_frames, stop


class _Forward(sf.SoundFile):  # type: ignore[misc]
    """A sound file that is only read forwards.

    soundfile seeks after every read of a seekable file. That is slow, disturbs the MP3 decoder's
    bit reservoir, and fails on a FLAC whose header leaves the length open.
    """

    def seekable(self) -> bool:
        return False


def open_sndfile(view: View, name: str, least_s: float = 0.0, slack_s: float = 0.0) -> Sound:
    """Open with libsndfile; `name` is the format that it has to find.

    `least_s` is what a walk over the stream has found to be in it at the least, `slack_s` how much
    earlier than libsndfile expects it may end.
    """
    try:
        sound = _Forward(view)
    except (sf.SoundFileError, ValueError, TypeError) as error:
        message = f"the {name} headers cannot be read; {AGAIN}"
        raise ContainerError("corrupt", message) from error
    if sound.format != name:
        message = f"the {name} file is something else inside; encode it again"
        raise ContainerError("corrupt", message)
    frames = sound.frames if sound.frames < 2**62 else None  # an open length reads as 2**63 - 1
    least, slack = (round(seconds * sound.samplerate) for seconds in (least_s, slack_s))
    enough = max((frames or 0) - slack, least)
    container = name.title() if name == "OGG" else name

    def blocks(first: int) -> Iterator[Floats]:
        return _blocks(sound, container, frames, enough)

    return Sound(sound.samplerate, sound.channels, frames, blocks, container, sound.subtype)


def _blocks(sound: Any, name: str, promised: int | None, enough: int) -> Iterator[Floats]:
    step = block_frames(sound.samplerate, sound.channels)
    # A FLAC's walk knows its length; behind the last block a zero may be there that is none of it
    most = promised if name == "FLAC" else None
    frames = 0
    with sound:
        while True:
            wanted = step if most is None else min(step, most - frames)
            try:
                block = sound.read(wanted, dtype="float32", always_2d=True)
            except sf.SoundFileError:
                stop("corrupt", name, sound.samplerate, max(frames, sound.tell()), promised)
            if not len(block):
                break
            frames += len(block)
            yield block
    if frames < enough:
        stop("truncated", name, sound.samplerate, frames, max(promised or 0, enough))
