"""The body of a request -> the files in it: a multipart form, or one file as it is."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException

from service.audio.files import Upload
from service.parameters import LISTS
from service.problems import Problem, given_twice
from service.settings import Settings
from service.traffic.body_limit import content_length
from service.traffic.budget import Share
from service.untrusted import printable
from service.uploads.forms import FormParser

FILE_FIELD = "file"
FORM = "multipart/form-data"
RAW_TYPES = ("application/octet-stream", "application/ogg", "video/mp4", "video/webm")
RAW_PREFIX = "audio/"
OFFSET = "application/offset+octet-stream"  # bytes of an upload in parts

PIECE_BYTES = 16 << 10  # that a parser gets at a time
MAX_FIELDS = 16
MAX_FIELD_BYTES = 8 * 1024
_CLOSE = {"Connection": "close"}

B = TypeVar("B")
Parse = Callable[[], Awaitable[B]]
"""Finds the files in a body that has been received whole."""


@dataclass(frozen=True)
class Body:
    """The files of a request, and the other fields of the form or of the JSON."""

    uploads: list[Upload]
    fields: dict[str, Any] = field(default_factory=dict)


async def read_body(request: Request, settings: Settings) -> Parse[Body]:
    """Receive a request's files into memory; the total is limited on the way in (`BodyLimit`).

    A form is parsed while it arrives, so that the `Parse` that is returned has nothing left to do.

    Raises:
        Problem: for a body of another kind, one that is malformed, one that takes too long, and
            where memory is full.
    """
    kind = accepted_media_type(request)
    async with in_time(settings):
        if kind == FORM:
            body = await _read_form(request, settings)
        else:
            body = Body([Upload(await received(request))])

    async def parse() -> Body:
        return body

    return parse


async def received(request: Request, copies: int = 1) -> bytearray:
    """The body, counted in the request's share of memory `copies` times, as reading it takes.

    Raises:
        Problem: memory is full.
    """
    body = bytearray()  # grows where it is; joining chunks would need twice the memory
    async for chunk in counted(request, copies):
        body += chunk
    return body


async def counted(request: Request, copies: int = 1) -> AsyncGenerator[bytes, None]:
    """The chunks of a body, each taken into the request's share of memory."""
    share: Share = request.state.share
    left = copies * content_length(request.scope)
    await share.take(left, is_upload=True)  # all of it, or many would wait for each other's rest
    async for chunk in request.stream():
        left -= copies * len(chunk)
        if left < 0:
            await share.take(-left, is_upload=True)
            left = 0
        yield chunk


async def _in_pieces(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in small pieces, for a parser that may be slow on what it gets.

    Between pieces other requests have their turn.
    """
    async for chunk in chunks:
        for first in range(0, len(chunk), PIECE_BYTES):
            yield chunk[first : first + PIECE_BYTES]
            await asyncio.sleep(0)


def keep(share: Share, uploads: Sequence[Upload], before: int = 0) -> None:
    """Give back the memory that reading a body took, but for its files and what was held before."""
    share.give(max(0, share.held - before - sum(upload.n_bytes for upload in uploads)))


@asynccontextmanager
async def in_time(settings: Settings) -> AsyncIterator[None]:
    """Limit the time in which a body is received inside the block.

    Raises:
        Problem: if it takes too long.
    """
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            yield
    except TimeoutError:
        raise body_timeout(settings.body_timeout_s) from None


def body_timeout(timeout_s: float) -> Problem:
    """The problem of a body that came too slowly."""
    return Problem(
        "body-timeout",
        f"The body had not arrived whole after {timeout_s:g} s.",
        limit=timeout_s,
        unit="s",
        headers=_CLOSE,
    )


def has_body(request: Request) -> bool:
    """Whether a request says that it has a body."""
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def refuse_encoding(request: Request) -> None:
    """Refuse a body that is compressed.

    Raises:
        Problem: it is compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        detail = (
            f"Content-Encoding {printable(encoding)!r} is not accepted; send the body as it is."
        )
        raise Problem("content-encoding", detail)


def declared_media_type(request: Request) -> str:
    """What a request says that its body is, without parameters."""
    declared = request.headers.get("content-type", RAW_TYPES[0])
    return declared.partition(";")[0].strip().lower()


def accepted_media_type(request: Request) -> str:
    """The body's media type, if it is one that is accepted; the format is told by the bytes."""
    refuse_encoding(request)
    kind = declared_media_type(request)
    if kind == FORM or kind in RAW_TYPES or kind.startswith(RAW_PREFIX):
        return kind
    raise Problem(
        "unsupported-media-type",
        f"Content-Type {printable(kind)!r} is not accepted; send {FORM} with the part "
        f"`{FILE_FIELD}`, or the file itself as {RAW_PREFIX}* or {RAW_TYPES[0]}.",
        accepted=[FORM, f"{RAW_PREFIX}*", *RAW_TYPES],
        headers={"Accept-Post": ", ".join((FORM, f"{RAW_PREFIX}*", *RAW_TYPES))},
    )


async def _read_form(request: Request, settings: Settings) -> Body:
    chunks = counted(request, copies=2)  # what the parser keeps, and what is read from it
    # No file is larger than the body, so that none goes to the disk
    form = await parsed_form(request, chunks, settings.max_files, settings.max_body_bytes)
    try:
        body = _files_and_fields(form)
    finally:
        await form.close()
    keep(request.state.share, body.uploads)
    return body


async def parsed_form(
    request: Request,
    chunks: AsyncIterator[bytes],
    max_files: int,
    held_bytes: int,
    share: Share | None = None,
) -> FormData:
    """A form whose body comes in chunks; files of more than `held_bytes` go to the disk.

    Args:
        request: has the form's headers.
        chunks: the body.
        max_files: how many files the form may have.
        held_bytes: of a file that are kept in memory.
        share: takes what is kept in memory; None, where the chunks are counted already.

    Raises:
        Problem: it is malformed, or has too many files.
    """
    parser = FormParser(
        request.headers,
        _in_pieces(chunks),
        max_files=max_files,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    parser.spool_max_size = held_bytes
    if share is not None:
        parser.stream = _taken(parser.stream, parser, share)
    try:
        return await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Problem(
                "too-many-files",
                f"The form has more than {max_files} files.",
                limit=max_files,
                observed=max_files + 1,  # where the count stopped
                unit="files",
            ) from None
        if error.message.startswith("Part exceeded"):
            raise _long_part(parser.part_name) from None
        raise Problem("bad-request", f"The form cannot be read: {error.message}") from None


async def _taken(
    pieces: AsyncIterator[bytes], parser: FormParser, share: Share
) -> AsyncGenerator[bytes, None]:
    """The pieces of a form; before each, the share takes what the parser may then keep of it."""
    n_bytes = taken = 0
    async for piece in pieces:
        n_bytes += len(piece)
        held = min(n_bytes, parser.n_parts * parser.spool_max_size + len(piece))
        await share.take(max(0, held - taken), is_upload=True)
        taken = max(taken, held)
        yield piece


def _files_and_fields(form: FormData) -> Body:
    parts, fields = parts_of(form)
    uploads = []
    for part in parts:  # the parser has kept them in memory: reading does not block
        uploads.append(Upload(part.file.read(), printable(part.filename or "")))
        part.file.close()  # so that only one file at a time is there twice
    return Body(uploads, fields)


def parts_of(form: FormData) -> tuple[list[UploadFile], dict[str, str]]:
    """The files of a form, and its other fields.

    Raises:
        Problem: there is no file, or one under another name.
    """
    parts, fields = fields_of(form)
    if not parts:
        raise Problem(
            "missing-file", f"The form holds no part `{FILE_FIELD}` with a file.", param=FILE_FIELD
        )
    return parts, fields


def fields_of(form: FormData) -> tuple[list[UploadFile], dict[str, str]]:
    """The files of a form, which need not be there, and its other fields.

    Raises:
        Problem: a file has another name, or a field comes twice.
    """
    parts: list[UploadFile] = []
    fields: dict[str, str] = {}
    for name, part in form.multi_items():
        if isinstance(part, UploadFile) and name == FILE_FIELD:
            parts.append(part)
        elif isinstance(part, UploadFile) or name == FILE_FIELD:
            raise _misplaced(name, part)
        elif part:  # else what a browser's form sends for an input left empty
            if name in fields and name not in LISTS:
                raise given_twice(name)
            fields[name] = f"{fields[name]},{part}" if name in fields else part
    return parts, fields


def _long_part(name: str) -> Problem:
    """The problem of a part that is no file and longer than a parameter may be."""
    if name == FILE_FIELD:
        return _misplaced(name, "")
    shown = printable(name)
    return Problem(
        "bad-request",
        f"The part {shown!r} of the form has more than {MAX_FIELD_BYTES} bytes and no file name: "
        f"a file is sent as the part `{FILE_FIELD}`, with one.",
        limit=MAX_FIELD_BYTES,
        unit="bytes",
        param=shown,
    )


def _misplaced(name: str, part: UploadFile | str) -> Problem:
    shown = printable(name)
    detail = (
        f"A file came as the part {shown!r}; its name must be `{FILE_FIELD}`."
        if isinstance(part, UploadFile)
        else f"The part `{FILE_FIELD}` is no file: it has no file name."
    )
    return Problem("missing-file", detail, param=FILE_FIELD)
