"""Long recordings answered in lines of JSON, or in events, while the rest is still computed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import TypeVar

import orjson
import structlog
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.audio.spool import Spooled, spooled
from service.context import Context
from service.errors import shortage
from service.exchange import merged
from service.formats.accept import negotiated
from service.formats.answers import NPY
from service.formats.arrow import ARROW
from service.problems import Problem, invalid_parameter
from service.streams.streaming import Members, Plan, answers
from service.traffic.patience import while_connected

NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"  # of HTML's Server-Sent Events
OTHERS = ("application/json", NPY, ARROW)  # what answers in one piece

P = TypeVar("P", bound=BaseModel)
Lines = AsyncGenerator[bytes, None]
Writer = Callable[[Iterable[Members]], bytes]

log = structlog.get_logger()


def streamed_as(request: Request, stream: bool) -> str | None:
    """The form of a stream, if one is asked for by the query or by the Accept header."""
    accept = request.headers.get("accept", "")
    if stream:
        return negotiated(accept, (NDJSON, EVENTS))
    chosen = negotiated(accept, (*OTHERS, NDJSON, EVENTS))
    return chosen if chosen in _WRITERS else None


def misplaced() -> Problem:
    """The parameter came with the form, too late to receive the file in another way."""
    return invalid_parameter("stream", "stream belongs into the query: ?stream=true.", value=True)


async def answer_in_lines(
    request: Request, shared: Context, query: P, planned: Callable[[P], Plan], media_type: str
) -> StreamingResponse:
    """Receive one file, and answer in that form once the first line is there.

    Raises:
        Problem: for whatever is wrong before that.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(shared.streams.slot())
        upload = await stack.enter_async_context(spooled(request, shared.settings))
        plan = planned(merged(query, upload.fields))
        spend = partial(shared.spend, request.state.caller)
        write = _WRITERS[media_type]
        lines = _lines(shared, plan, upload, spend, write, request.state.request_id)
        await stack.enter_async_context(aclosing(lines))
        first = await while_connected(request, _first(lines))
        sent = _with(first, lines)
        return LineResponse(sent, media_type, stack.pop_all(), shared.settings.idle_timeout_s)
    raise AssertionError("nothing is suppressed")


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
    write: Writer,
    request_id: str,
) -> Lines:
    """The answers; what goes wrong after the first of them is the last line."""
    before = plan.opening | ({"file": upload.name} if upload.name else {})
    opening: list[Members] = [before]
    warnings: list[str] = []
    async with (
        aclosing(shared.recordings.blocks(upload.file, plan.selection, warnings.append)) as blocks,
        aclosing(answers(shared.engine.batcher, plan, blocks, spend, warnings)) as some,
    ):
        try:
            async for members in some:
                yield write([*opening, *members])
                opening = []
        except Exception as error:
            if opening:
                raise
            yield write([failure(as_problem(error), request_id)])


def as_problem(error: Exception) -> Problem:
    """What broke a stream off, as it may be told."""
    if isinstance(error, Problem):
        return error
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


async def _first(lines: Lines) -> bytes:
    return await anext(lines)


async def _with(first: bytes, rest: Lines) -> AsyncGenerator[bytes, None]:
    yield first
    async for line in rest:
        yield line
