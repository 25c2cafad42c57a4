"""The files of a form -> uploads of the store, for a job that takes them at once."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import FormData

from service.collecting import signature_of
from service.collections.records import StoreError
from service.collections.uploads import PART_BYTES, Uploads
from service.context import Context
from service.queueing import Queueing
from service.settings import Settings
from service.threads import in_thread
from service.traffic.budget import Share
from service.untrusted import printable
from service.uploads.body import counted, fields_of, parsed_form, refuse_encoding
from service.uploads.spool import is_disk_there

HELD_BYTES = 64 << 10  # of a file in memory, before it goes to a temporary one


@dataclass
class Made:
    """The uploads that a form's files have become; deleted unless a job has taken them.

    Attributes:
        contents: of each file its name and the SHA-256 of its bytes.
    """

    ids: list[str] = field(default_factory=list)
    contents: list[tuple[str | None, str]] = field(default_factory=list)
    are_taken: bool = False


@asynccontextmanager
async def received_files(
    request: Request, shared: Context, queueing: Queueing
) -> AsyncIterator[tuple[dict[str, str], Made]]:
    """The fields of a form, and its files as uploads; it holds a place while they arrive.

    Raises:
        Problem: the form cannot be read, or every place is taken.
        StoreError: there is no room for its files.
    """
    refuse_encoding(request)
    owner, uploads, made = signature_of(request.state.caller), queueing.store.uploads, Made()
    with shared.receiving.slot(), shared.receivers.slot(request.state.caller):
        form = await _received(request, shared.settings)
    try:
        await _keep(form, owner, queueing, made)
        yield fields_of(form)[1], made
    finally:
        if not made.are_taken:
            for name in made.ids:
                with suppress(StoreError):
                    await in_thread(uploads.delete, owner, name)
        await form.close()


async def _received(request: Request, settings: Settings) -> FormData:
    """The form, its files on the disk; in memory where no folder can be written."""
    share: Share = request.state.share
    if await in_thread(is_disk_there):
        request.state.max_body_bytes = settings.max_stream_body_bytes
        chunks = request.stream()
        return await parsed_form(request, chunks, settings.max_files, HELD_BYTES, share)
    most = request.state.max_body_bytes = settings.max_body_bytes
    return await parsed_form(request, counted(request), settings.max_files, most)


async def _keep(form: FormData, owner: str, queueing: Queueing, made: Made) -> None:
    uploads = queueing.store.uploads
    for part in fields_of(form)[0]:
        upload = await in_thread(
            uploads.create,
            owner,
            part.size or 0,
            printable(part.filename or ""),
            most_bytes=queueing.most_bytes,
            kept_s=queueing.uploads_kept_s,
        )
        made.ids.append(upload.id)
        digest = await in_thread(_copy, uploads, owner, upload.id, part.file)
        made.contents.append((part.filename, digest))


def _copy(uploads: Uploads, owner: str, name: str, file: BinaryIO) -> str:
    first, digest = 0, hashlib.sha256()
    while data := file.read(PART_BYTES):
        uploads.append(owner, name, first, data)
        first += len(data)
        digest.update(data)
    return digest.hexdigest()
