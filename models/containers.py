"""Audio containers: an open file -> the recordings in it, one behind the other.

What a file is, is told by its first bytes alone. Each reader in `models.formats` says where its
recording ends; what follows is told by its first bytes again, so that joined files are read to the
end, and what no reader knows is named in a warning.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from models.formats.aiff import read_aiff
from models.formats.amr import read_amr
from models.formats.au import read_au
from models.formats.caf import read_caf
from models.formats.file import File
from models.formats.flac import read_flac
from models.formats.frames import LOOKED_AHEAD, find_stream
from models.formats.magic import Kind, find_recording, kind_at, lone_frame
from models.formats.media import read_asf, read_matroska, read_movie
from models.formats.mpeg import read_adts, read_mp3
from models.formats.ogg import read_ogg
from models.formats.riff import read_w64, read_wav
from models.formats.sound import ContainerError, Part, Sound
from models.formats.tags import after_padding

FORMATS = [
    "WAV (PCM, float, A-law or mu-law)",
    "AIFF",
    "AU",
    "CAF",
    "W64",
    "FLAC",
    "Ogg Vorbis",
    "Ogg Opus",
    "MP3",
]
MEDIA_FORMATS = [
    "m4a",
    "webm",
    "WMA",
    "AAC",
    "AMR",
    "AMR-WB",
    "Ogg FLAC",
    "ALAC in CAF",
    "WAV (ADPCM or GSM)",
]
SUFFIXES = frozenset(
    (
        *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".au", ".snd"),
        *(".caf", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".3gp", ".webm"),
        *(".mka", ".wma", ".aac", ".amr", ".awb"),
    )
)
"""What names of files of these formats end with."""

MAX_PARTS = 10_000
LEFT_OVER_BYTES = 256  # that may follow the last recording without a word

_READERS: dict[Kind, Callable[[File, int], Part]] = {
    "wav": read_wav,
    "w64": read_w64,
    "aiff": read_aiff,
    "au": read_au,
    "caf": read_caf,
    "ogg": read_ogg,
    "flac": read_flac,
    "movie": read_movie,
    "matroska": read_matroska,
    "asf": read_asf,
    "amr": read_amr,
    "mp3": read_mp3,
    "adts": read_adts,
}


def accepted_formats() -> list[str]:
    """What this installation reads."""
    return FORMATS + (MEDIA_FORMATS if find_spec("av") else [])


def open_sounds(file: File) -> Iterator[Sound]:
    """The recordings of a file, in their order, each opened when it is asked for.

    `file.warnings` is complete once the last one was taken.

    Raises:
        ContainerError: for anything that is wrong with the file.
    """
    if not file.size:
        raise ContainerError("empty", "the file holds no bytes; send one that holds audio")
    kind: Kind | None
    offset, kind = _beginning(file)
    n_parts = 0
    while kind is not None:
        part = _READERS[kind](file, offset)
        yield part.open()
        n_parts += 1
        if n_parts == MAX_PARTS:
            message = f"the file holds more than {MAX_PARTS} recordings in a row; split it"
            raise ContainerError("unsupported", message, MAX_PARTS, MAX_PARTS + 1, "recordings")
        offset, kind = _next(file, part.stop)


def _next(file: File, stop: int) -> tuple[int, Kind | None]:
    """The offset and the format of the recording that follows another one; no format at the end."""
    offset = after_padding(file, stop)
    if kind := kind_at(file, offset) or lone_frame(file, offset):
        return offset, kind
    found = find_recording(file, offset)
    left = (file.size if found is None else found) - offset
    if left > LEFT_OVER_BYTES or (left and found is not None):
        file.warn(f"{left} bytes behind a recording are no audio that is known: not read.")
    return (file.size, None) if found is None else (found, kind_at(file, found))


def _beginning(file: File) -> tuple[int, Kind]:
    """The offset and the format of the first recording."""
    offset = after_padding(file, 0)
    for begin in dict.fromkeys((0, offset)):
        if kind := kind_at(file, begin):
            return begin, kind
    found = find_stream(file, offset, offset + LOOKED_AHEAD)
    if found is not None and (kind := kind_at(file, found)):
        return found, kind
    if kind := lone_frame(file, offset):
        return offset, kind
    names = ", ".join(accepted_formats())
    raise ContainerError("unsupported", f"the format is not recognised; accepted are {names}")
