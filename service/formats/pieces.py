"""Answers of any length, written piece by piece as the client takes them."""

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from service.output import Piece
from service.threads import in_thread

JSON = "application/json"
CHUNK_BYTES = 256 << 10  # that are written at a time; an answer of less has a Content-Length


@dataclass(frozen=True)
class Entry:
    """What an answer says of one file; the windows, if any, are made when they are written."""

    file: BaseModel
    windows: Iterator[BaseModel] | None = None


def list_response(head: BaseModel, entries: Iterable[Entry]) -> Response:
    """The JSON of `head`, whose member `data` holds the entries; to be called in a thread."""
    return respond(_written(head, entries), JSON)


def respond(
    pieces: Iterator[Piece],
    media_type: str,
    headers: dict[str, str] | None = None,
    n_bytes: int | None = None,
) -> Response:
    """A response of these pieces, the first of which are made now; to be called in a thread.

    Args:
        pieces: raise nothing from the second chunk on, since the status has been sent by then.
        media_type: of the whole.
        headers: to be sent.
        n_bytes: how long the whole is, if that is known.
    """
    chunks = _chunks(pieces)
    first, second = next(chunks, b""), next(chunks, None)
    if second is None:
        return Response(first, media_type=media_type, headers=headers)
    length = {} if n_bytes is None else {"Content-Length": str(n_bytes)}
    rest = _taken(chain([first, second], chunks))
    return StreamingResponse(rest, media_type=media_type, headers=length | (headers or {}))


def _chunks(pieces: Iterator[Piece]) -> Iterator[bytes]:
    """The same bytes in parts of about `CHUNK_BYTES`."""
    held: list[Piece] = []
    n_held = 0
    for piece in pieces:
        for first in range(0, len(piece), CHUNK_BYTES):
            held.append(piece[first : first + CHUNK_BYTES])
            n_held += len(held[-1])
            if n_held >= CHUNK_BYTES:
                yield b"".join(held)
                held, n_held = [], 0
    if held:
        yield b"".join(held)


async def _taken(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each chunk is made in a thread once the one before it has left."""
    while chunk := await in_thread(next, chunks, b""):
        yield chunk


def _written(head: BaseModel, entries: Iterable[Entry]) -> Iterator[bytes]:
    members = head.model_dump(exclude_none=True)
    for place, (name, value) in enumerate(members.items()):
        yield (b"," if place else b"{") + orjson.dumps(name) + b":"
        if name == "data":
            yield b"["
            yield from _joined(_entry(entry) for entry in entries)
            yield b"]"
        else:
            yield orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    yield b"}"


def _entry(entry: Entry) -> Iterator[bytes]:
    text = written(entry.file)
    if entry.windows is None:
        yield text
        return
    yield text[:-1] + b',"windows":['
    yield from _joined([written(window)] for window in entry.windows)
    yield b"]}"


def _joined(items: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Pieces of each item, with a comma before all but the first."""
    for place, item in enumerate(items):
        if place:
            yield b","
        yield from item


def written(answer: BaseModel) -> bytes:
    """The JSON of one object, its arrays as numbers."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
    return orjson.dumps(answer.model_dump(exclude_none=True), option=options)
