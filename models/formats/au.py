"""Sun's AU: PCM, float, A-law and mu-law.

https://pubs.opengroup.org/external/auformat.html
"""

import struct

from models.formats.file import File
from models.formats.magic import is_au
from models.formats.pcm import STREAMED, Layout, Rules, find_samples, pcm_sound
from models.formats.sound import ContainerError, Part

_ENCODINGS = {
    1: ("ULAW", 1),
    2: ("PCM_S8", 1),
    3: ("PCM_16", 2),
    4: ("PCM_24", 3),
    5: ("PCM_32", 4),
    6: ("FLOAT", 4),
    7: ("DOUBLE", 8),
    27: ("ALAW", 1),
}
_RULES = Rules(lambda file, offset: None, b"", b".snd", is_au)


def read_au(file: File, start: int) -> Part:
    """The AU file that begins at `start`."""
    offset, n_bytes, encoding, rate, channels = struct.unpack(">5I", file.at(start + 4, 20))
    if encoding not in _ENCODINGS:
        message = f"AU of the encoding {encoding} is not accepted; export as PCM"
        raise ContainerError("unsupported", message)
    subtype, sample_bytes = _ENCODINGS[encoding]
    layout = Layout("AU", subtype, channels, rate, channels * sample_bytes, "BIG")
    claimed = None if n_bytes in (0, STREAMED) else n_bytes
    extent = find_samples(
        file, layout, start + offset, claimed, _RULES, header_bytes=offset, is_whole=True
    )
    return Part(extent.stop, lambda: pcm_sound(file, layout, extent))
