"""Long recordings answered in lines of JSON, or in events, while the rest is still computed."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import TypeVar

import orjson
import structlog
from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.context import Context
from service.errors import as_problem, shortage
from service.exceptions import Failure
from service.exchange import merged
from service.formats.accept import IN_ONE_PIECE, negotiated
from service.problems import Problem, invalid_parameter
from service.streams.streaming import Members, Plan, answers
from service.traffic.patience import while_connected
from service.uploads.spool import Spooled, spooled

NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"  # of HTML's Server-Sent Events

P = TypeVar("P", bound=BaseModel)
Lines = AsyncGenerator[bytes, None]
Answers = AsyncGenerator[list[Members], None]
Instead = Callable[[P, Spooled, Answers], Answers]
Writer = Callable[[Iterable[Members]], bytes]

log = structlog.get_logger()


def streamed_as(request: Request, stream: bool) -> str | None:
    """The form of a stream, if one is asked for by the query or by the Accept header."""
    accept = request.headers.get("accept", "")
    if stream:
        return negotiated(accept, list(_WRITERS))
    chosen = negotiated(accept, [*IN_ONE_PIECE, *_WRITERS])
    return chosen if chosen in _WRITERS else None


def may_stream(scope: Scope) -> bool:
    """Whether a request may be one for a stream, seen before its parameters are read."""
    accept = Headers(scope=scope).get("accept", "")
    query = scope["query_string"]
    in_query = b"stream" in query or b"%" in query  # which may spell it
    return in_query or any(kind in accept.lower() for kind in _WRITERS)


def misplaced() -> Problem:
    """The problem of `stream` in the form, where it comes too late."""
    return invalid_parameter("stream", "stream belongs into the query: ?stream=true.", value=True)


async def answer_in_lines(
    request: Request,
    shared: Context,
    query: P,
    planned: Callable[[P], Awaitable[Plan]],
    media_type: str,
    instead: Instead[P] | None = None,
) -> StreamingResponse:
    """Receive one file, and answer in `media_type` once the first line is there.

    `instead` turns the answers into those that are sent.

    Raises:
        Problem: for whatever is wrong before that.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(shared.streams.slot())
        upload = await stack.enter_async_context(spooled(request, shared.settings))
        asked = merged(query, upload.fields)
        plan = await planned(asked)
        change = partial(instead, asked, upload) if instead else _as_they_are
        spend = partial(shared.spend, request.state.caller)
        write = _WRITERS[media_type]
        lines = _lines(shared, plan, upload, spend, change, write, request.state.request_id)
        return await begun(request, shared, lines, media_type, stack)
    raise AssertionError("nothing is suppressed")


async def send_in_lines(
    request: Request, shared: Context, answers: Answers, media_type: str
) -> StreamingResponse:
    """Send answers in `media_type` as they are made, once there is a first one.

    Raises:
        Problem: there is no place for another stream.
        Exception: what `answers` raises before the first one.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(shared.streams.slot())
        lines = _written(answers, _WRITERS[media_type], request.state.request_id)
        return await begun(request, shared, lines, media_type, stack)
    raise AssertionError("nothing is suppressed")


async def begun(
    request: Request, shared: Context, lines: Lines, media_type: str, stack: AsyncExitStack
) -> StreamingResponse:
    """An answer whose first line is there; it takes along what `stack` holds."""
    await stack.enter_async_context(aclosing(lines))
    first = await while_connected(request, _first(lines))
    sent, idle_s = _with(first, lines), shared.settings.idle_timeout_s
    return LineResponse(sent, media_type, stack.pop_all(), idle_s)


class LineResponse(StreamingResponse):
    """Sends lines as long as the client takes them, and then lets go of what they needed."""

    def __init__(
        self, lines: Lines, media_type: str, resources: AsyncExitStack, idle_timeout_s: float
    ) -> None:
        # nginx would keep lines back until it has a buffer full of them
        super().__init__(lines, media_type=media_type, headers={"X-Accel-Buffering": "no"})
        self._resources, self._idle_timeout_s = resources, idle_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the connection is cut where the client stands still for too long."""

        async def patient(message: Message) -> None:
            async with asyncio.timeout(self._idle_timeout_s):
                await send(message)

        async with self._resources:
            try:
                await super().__call__(scope, receive, patient)
            except* TimeoutError:
                log.info("stream given up: the client takes nothing", after_s=self._idle_timeout_s)


async def _lines(
    shared: Context,
    plan: Plan,
    upload: Spooled,
    spend: Callable[[float], None],
    change: Callable[[Answers], Answers],
    write: Writer,
    request_id: str,
) -> Lines:
    """The answers; what goes wrong after the first of them is the last line."""
    before = plan.opening | ({"file": upload.name} if upload.name else {})
    opening: list[Members] = [before]
    warnings: list[str] = []
    async with (
        aclosing(shared.recordings.blocks(upload.file, plan.selection, warnings.append)) as blocks,
        aclosing(answers(shared.engine.batcher, plan, blocks, spend, warnings)) as given,
        aclosing(_opened_by(opening, change(given))) as some,
        aclosing(_written(some, write, request_id)) as lines,
    ):
        async for line in lines:
            yield line


async def _opened_by(opening: list[Members], answers: Answers) -> Answers:
    """The answers, the first of them behind what opens them."""
    async with aclosing(answers):
        async for members in answers:
            yield [*opening, *members]
            opening = []


async def _written(answers: Answers, write: Writer, request_id: str) -> Lines:
    """Answers as lines; what goes wrong after the first of them is the last line."""
    has_begun = False
    async with aclosing(answers):
        try:
            async for members in answers:
                yield write(members)
                has_begun = True
        except Exception as error:
            if not has_begun:
                raise
            yield write([failure(broken_off(error), request_id)])


def broken_off(error: Exception) -> Problem:
    """The problem that an exception is, where it breaks off a stream."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Failure):
        return as_problem(error)
    if short := shortage(error):
        return short
    log.error("stream failed", exc_info=error)
    return Problem("internal", "The request failed inside the service.")


def failure(problem: Problem, request_id: str) -> Members:
    """The last answer of a stream that breaks off; when to come again is a member of it."""
    log.info("stream broken off", problem=problem.kind.slug, detail=problem.detail)
    retry = (problem.headers or {}).get("Retry-After")
    document = problem.document(
        instance=f"urn:viola:request:{request_id}",
        error=problem.openai_error(),
        **({"retry_after_s": int(retry)} if retry else {}),
    )
    return {"object": "error", "error": document}


def as_lines(answers: Iterable[Members]) -> bytes:
    """Answers as lines of JSON, arrays as numbers."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps(members, option=options) for members in answers)


def as_events(answers: Iterable[Members]) -> bytes:
    """The same documents as events, each called what its `object` says."""
    return b"".join(
        b"event: %b\ndata: %b\n" % (members["object"].encode(), as_lines([members]))
        for members in answers
    )


_WRITERS: dict[str, Writer] = {NDJSON: as_lines, EVENTS: as_events}
LINES = {media_type: {"schema": {"type": "string"}} for media_type in _WRITERS}
"""The media types of streams, for OpenAPI."""


def _as_they_are(given: Answers) -> Answers:
    return given


async def _first(lines: Lines) -> bytes:
    return await anext(lines)


async def _with(first: bytes, rest: Lines) -> AsyncGenerator[bytes, None]:
    yield first
    async for line in rest:
        yield line
