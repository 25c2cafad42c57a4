"""The body of a long upload -> an open file, without holding it in memory.

The file has no name: it is gone when it is closed, or when the process ends, however it ends. Where
no folder can be written (`TMPDIR` names one) it is kept in memory, and `max_body_bytes` applies. A
disk that is full is an OSError, which becomes a problem like any other of a request.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from fastapi import Request

from service.settings import Settings
from service.threads import in_thread
from service.untrusted import printable
from service.uploads.body import FORM, accepted_media_type, counted, parsed_form, parts_of

_WRITE_BYTES = 1 << 20


@dataclass(frozen=True)
class Spooled:
    """One file as it came, and the form's other fields."""

    file: BinaryIO
    name: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def spooled(request: Request, settings: Settings) -> AsyncIterator[Spooled]:
    """Receive a request's only file; it is closed at the end. It may take long if it keeps moving.

    Raises:
        Problem: as `read_body`.
        OSError: the disk is full, or no more files can be opened.
    """
    kind = accepted_media_type(request)
    file, on_disk = nameless()
    with file:
        request.state.max_body_bytes = (
            settings.max_stream_body_bytes if on_disk else settings.max_body_bytes
        )
        chunks = request.stream() if on_disk else counted(request, copies=2 if kind == FORM else 1)
        if kind != FORM:
            await _receive(chunks, file)
            yield Spooled(file)
            return
        form = await parsed_form(
            request, chunks, 1, held_bytes=_WRITE_BYTES if on_disk else settings.max_body_bytes
        )
        try:
            parts, fields = parts_of(form)
            name = printable(parts[0].filename or "")
            yield Spooled(await _opened(parts[0].file, file, on_disk), name, fields)
        finally:
            await form.close()


def nameless() -> tuple[BinaryIO, bool]:
    """A file without a name, and whether it is on a disk."""
    try:
        return cast(BinaryIO, tempfile.TemporaryFile(buffering=0)), True
    except OSError:
        return os.fdopen(os.memfd_create("recording"), "w+b", buffering=0), False


def is_disk_there() -> bool:
    """Whether a form's files can go to a disk."""
    file, on_disk = nameless()
    file.close()
    return on_disk


async def _receive(chunks: AsyncIterator[bytes], file: BinaryIO) -> None:
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= _WRITE_BYTES:
            await in_thread(write_whole, file, [held])
            held = bytearray()
    await in_thread(write_whole, file, [held])


def write_whole(file: BinaryIO, parts: Iterable[bytes | bytearray]) -> None:
    """Write all of some parts to a file without a buffer, which may take less than it is given."""
    for part in parts:
        view = memoryview(part)
        while len(view):
            view = view[file.write(view) :]


async def _opened(part: BinaryIO, file: BinaryIO, on_disk: bool) -> BinaryIO:
    """The parser's file, moved to the disk; where there is no disk, a copy of it in `file`."""
    if not on_disk:
        await in_thread(shutil.copyfileobj, part, file, _WRITE_BYTES)
        return file
    await in_thread(part.fileno)  # a spooled file goes to the disk for its number
    part.flush()
    return part
