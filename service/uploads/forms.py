"""Multipart forms, with the file names of clients that write them as mail does.

RFC 7578 wants `filename="naïve.wav"`, and Starlette reads nothing else; some clients send
`filename*=UTF-8''na%C3%AFve.wav` alone (RFC 8187), without which the part would be no file.
"""

import re
from urllib.parse import unquote

from starlette.formparsers import MultiPartParser

_PLAIN = re.compile(rb";\s*filename\s*=", re.IGNORECASE)
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*\"?([\w.-]+)'[\w-]*'([^\s;\"]*)", re.IGNORECASE)


class FormParser(MultiPartParser):
    """Starlette's parser, for which such a name is a file's name too."""

    @property
    def part_name(self) -> str:
        """What the part is called that is being read."""
        return str(getattr(self._current_part, "field_name", ""))

    def on_headers_finished(self) -> None:
        """Called by the parser when a part's headers are complete."""
        part = self._current_part
        if part.content_disposition is not None:
            part.content_disposition = with_plain_name(part.content_disposition)
        super().on_headers_finished()


def with_plain_name(disposition: bytes) -> bytes:
    """A part's Content-Disposition, with the plain form of its file name if it has none."""
    match = _EXTENDED.search(disposition)
    if match is None or _PLAIN.search(disposition):
        return disposition
    charset, name = match[1].decode("ascii", "replace"), match[2].decode("latin-1")
    try:
        plain = unquote(name, charset, "replace")
    except LookupError:  # there is no such charset
        plain = unquote(name, "latin-1")
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "replace")
    return disposition + b'; filename="' + quoted + b'"'
