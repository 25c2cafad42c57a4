"""AMR and AMR-WB, as phones record: RFC 4867, section 5. FFmpeg decodes."""

from models.formats.file import File, View
from models.formats.magic import kind_at
from models.formats.media import open_media
from models.formats.sound import ContainerError, Part
from models.formats.tags import after_padding

_NARROW, _WIDE = b"#!AMR\n", b"#!AMR-WB\n"
_SIZES = {  # bytes of a frame, its head included, by its type; 0: there is no such type
    _NARROW: (13, 14, 16, 18, 20, 21, 27, 32, 6, 7, 6, 6, 0, 0, 0, 1),
    _WIDE: (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}
_FRAME_S = 0.02


def read_amr(file: File, start: int) -> Part:
    """The AMR stream that begins at `start`."""
    mark = _WIDE if file.at(start, len(_WIDE)) == _WIDE else _NARROW
    name, codec = ("AMR-WB", "amrwb") if mark == _WIDE else ("AMR", "amrnb")
    offset, n_frames, is_cut = start + len(mark), 0, False
    while offset < file.size and kind_at(file, offset) is None:
        n_bytes = _SIZES[mark][file.at(offset, 1)[0] >> 3 & 15]
        if not n_bytes:
            if after_padding(file, offset) > offset:
                break
            at_s = n_frames * _FRAME_S
            message = f"the {name} stream is damaged after {at_s:.2f} s; copy the file again"
            raise ContainerError("corrupt", message, None, at_s, "s")
        is_cut = offset + n_bytes > file.size
        offset, n_frames = offset + n_bytes, n_frames + (not is_cut)
    end = min(offset, file.size)
    view, seconds = View(file, [(start, end)]), n_frames * _FRAME_S
    return Part(
        end,
        lambda: open_media(
            view, name, "amr", {codec}, promised_s=seconds, slack_s=0.0, is_cut=is_cut
        ),
    )
