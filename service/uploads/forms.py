"""Multipart forms that came whole, with the file names of clients that write them as mail does.

RFC 7578 wants `filename="naïve.wav"`, and Starlette reads nothing else; some clients send
`filename*=UTF-8''na%C3%AFve.wav` alone (RFC 8187), without which the part would be no file. A quote
in a name comes as `%22` from all that follow the HTML standard, which leave `%` itself as it is.
"""

import re
from urllib.parse import unquote

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

_PLAIN = re.compile(rb";\s*filename\s*=", re.IGNORECASE)
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*\"?([\w.-]+)'[\w-]*'([^\s;\"]*)", re.IGNORECASE)

_CHARSETS = ("utf-8", "iso-8859-1")  # of such a name (RFC 5987); Python has some that only raise


class FormParser(MultiPartParser):
    """Starlette's parser, which also takes file names in the extended form, `filename*=`.

    It refuses a form that was cut off: what is missing may be a file, or a parameter.
    """

    n_parts = 0  # that have begun
    _is_open = False  # a part has begun, and the last boundary has not come

    @property
    def part_name(self) -> str:
        """The name of the part that is being read."""
        return str(getattr(self._current_part, "field_name", ""))

    async def parse(self) -> FormData:
        """The form.

        Raises:
            MultiPartException: it cannot be read, or was cut off.
        """
        form = await super().parse()
        if self._is_open:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it ends before its last boundary; send all of it.")
        return form

    def on_part_begin(self) -> None:
        """Called by the parser when a part begins."""
        self._is_open = True
        self.n_parts += 1
        super().on_part_begin()

    def on_end(self) -> None:
        """Called by the parser at the last boundary."""
        self._is_open = False

    def on_headers_finished(self) -> None:
        """Called by the parser when a part's headers are complete."""
        self._charset = "utf-8"  # that of the form's Content-Type means nothing (RFC 7578, 5.1)
        part = self._current_part
        if part.content_disposition is not None:
            part.content_disposition = with_plain_name(part.content_disposition)
        super().on_headers_finished()
        if part.file is not None and part.file.filename:  # browsers, curl and httpx write it so
            part.file.filename = part.file.filename.replace("%22", '"')


def with_plain_name(disposition: bytes) -> bytes:
    """A part's Content-Disposition, with the plain form of its file name if it has none."""
    match = _EXTENDED.search(disposition)
    if match is None or _PLAIN.search(disposition):
        return disposition
    charset, name = match[1].decode("latin-1").lower(), match[2].decode("latin-1")
    plain = unquote(name, charset if charset in _CHARSETS else "latin-1", "replace")
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "replace")
    return disposition + b'; filename="' + quoted + b'"'
