"""The body of a request -> the files in it: a multipart form, or one file as it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.problems import Problem
from service.settings import Settings
from service.untrusted import printable

FILE_FIELD = "file"
FORM = "multipart/form-data"
RAW_TYPES = ("application/octet-stream", "application/ogg", "video/mp4", "video/webm")
RAW_PREFIX = "audio/"

MAX_FIELDS = 16
MAX_FIELD_BYTES = 8 * 1024
_CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class Upload:
    """One file as it came; the name is fit to echo and is never a path."""

    data: bytes
    name: str | None = None


@dataclass(frozen=True)
class Body:
    """The files of a request, and the other fields of the form or of the JSON."""

    uploads: list[Upload]
    fields: dict[str, Any] = field(default_factory=dict)


async def read_body(request: Request, settings: Settings) -> Body:
    """Receive a request's files into memory; the total is limited on the way in (`BodyLimit`).

    Raises:
        Problem: for a body of another kind, one that is malformed, and one that takes too long.
    """
    media_type = _media_type(request)
    async with in_time(settings):
        if media_type == FORM:
            return await _read_form(request, settings)
        return Body([Upload(await request.body())])


@asynccontextmanager
async def in_time(settings: Settings) -> AsyncIterator[None]:
    """Receive a body inside.

    Raises:
        Problem: if it takes too long.
    """
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            yield
    except TimeoutError:
        raise Problem(
            "body-timeout",
            f"The body had not arrived whole after {settings.body_timeout_s:g} s.",
            limit=settings.body_timeout_s,
            unit="s",
            headers=_CLOSE,
        ) from None


def refuse_encoding(request: Request) -> None:
    """Refuse a body that is compressed.

    Raises:
        Problem: always then.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        detail = (
            f"Content-Encoding {printable(encoding)!r} is not accepted; send the body as it is."
        )
        raise Problem("content-encoding", detail)


def _media_type(request: Request) -> str:
    """The body's media type if it is read here; the format is told by the bytes later."""
    refuse_encoding(request)
    declared = request.headers.get("content-type", RAW_TYPES[0])
    media_type = declared.partition(";")[0].strip().lower()
    if media_type == FORM or media_type in RAW_TYPES or media_type.startswith(RAW_PREFIX):
        return media_type
    raise Problem(
        "unsupported-media-type",
        f"Content-Type {printable(media_type)!r} is not accepted; send {FORM} with the part "
        f"`{FILE_FIELD}`, or the file itself as {RAW_PREFIX}* or {RAW_TYPES[0]}.",
        accepted=[FORM, f"{RAW_PREFIX}*", *RAW_TYPES],
        headers={"Accept-Post": ", ".join((FORM, f"{RAW_PREFIX}*", *RAW_TYPES))},
    )


async def _read_form(request: Request, settings: Settings) -> Body:
    form = await _parsed(request, settings)
    try:
        return _files_and_fields(form)
    finally:
        await form.close()


async def _parsed(request: Request, settings: Settings) -> FormData:
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=settings.max_files,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    parser.spool_max_size = settings.max_body_bytes  # uploads are never written to disk
    try:
        return await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Problem(
                "too-many-files",
                f"The form has more than {settings.max_files} files.",
                limit=settings.max_files,
                observed=settings.max_files + 1,  # where the count stopped
                unit="files",
            ) from None
        raise Problem("bad-request", f"The form cannot be read: {error.message}") from None


def _files_and_fields(form: FormData) -> Body:
    uploads, fields = [], {}
    for name, part in form.multi_items():
        if isinstance(part, UploadFile) and name == FILE_FIELD:
            # The parser has kept it in memory: reading does not block
            uploads.append(Upload(part.file.read(), printable(part.filename or "")))
        elif isinstance(part, UploadFile) or name == FILE_FIELD:
            raise _misplaced(name, part)
        elif part:  # what a browser's form sends for an input left empty
            fields[name] = part
    if not uploads:
        raise Problem(
            "missing-file", f"The form holds no part `{FILE_FIELD}` with a file.", param=FILE_FIELD
        )
    return Body(uploads, fields)


def _misplaced(name: str, part: UploadFile | str) -> Problem:
    shown = printable(name)
    detail = (
        f"A file came as the part {shown!r}; its name must be `{FILE_FIELD}`."
        if isinstance(part, UploadFile)
        else f"The part `{FILE_FIELD}` is no file: it has no file name."
    )
    return Problem("missing-file", detail, param=FILE_FIELD)
