"""What all routes that take audio have in common: receive, decode, embed, and time each stage."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from models.audio import WHOLE, Selection
from models.runtime import Encoder
from service.audio.uploads import Body, Parse, read_body
from service.context import Context
from service.engine import Clip, Embedded, Windowing
from service.problems import Problem
from service.settings import Settings
from service.telemetry.timing import Timing
from service.traffic.budget import Costs
from service.traffic.patience import while_connected, within

MAX_ERRORS = 16  # that are told of one request

P = TypeVar("P", bound=BaseModel)
B = TypeVar("B", bound=Body)
Answer = Callable[[B, P, Timing], Coroutine[Any, Any, Response]]
Receive = Callable[[Request, Settings], Awaitable[Parse[B]]]


async def exchange(
    request: Request, shared: Context, query: P, answer: Answer[Body, P]
) -> Response:
    """Receive a request's files in one of the places there are, and answer it; see `converse`."""
    return await converse(request, shared, read_body, query, answer)


async def converse(
    request: Request, shared: Context, receive: Receive[B], query: P, answer: Answer[B, P]
) -> Response:
    """Receive a request's body by `receive` in one of the places there are, and answer it.

    What is done once the body is there, parsing included, has the request's deadline, and ends
    where the client leaves.

    Raises:
        Problem: whatever is wrong with the body, what `answer` raises, or that it takes too long.
        ClientDisconnect: nobody waits for the answer any more.
    """
    timing = Timing(shared.tracer)
    try:
        with shared.admission.slot():
            with timing.stage("receive"):
                parse = await receive(request, shared.settings)
            work = _parsed_and_answered(shared, parse, query, answer, timing)
            timeout_s = shared.settings.request_timeout_s
            response = await while_connected(request, within(timeout_s, work))
    finally:
        shared.metrics.observe_stages(timing.seconds)
    response.headers["Server-Timing"] = timing.header()
    return response


async def _parsed_and_answered(
    shared: Context, parse: Parse[B], query: P, answer: Answer[B, P], timing: Timing
) -> Response:
    with timing.stage("receive"):
        body = await parse()
    shared.metrics.files.observe(len(body.uploads))
    return await answer(body, merged(query, body.fields), timing)


async def embed(
    request: Request,
    shared: Context,
    encoder: Encoder,
    body: Body,
    windowing: Windowing | None,
    timing: Timing,
    *,
    selection: Selection = WHOLE,
    measured: bool = False,
) -> list[Embedded | Problem]:
    """The vectors of each file, or what is wrong with it.

    Raises:
        ClientDisconnect: nobody waits for the answer any more.
        Problem: too many windows.
    """
    share, given = request.state.share, costs(request, shared)
    with timing.stage("decode"):
        prepared = await shared.engine.prepare(body.uploads, given, selection, measured=measured)
    shared.metrics.observe_decoded(prepared)
    if await request.is_disconnected():
        raise ClientDisconnect
    n_bytes = sum(clip.samples.nbytes for clip in prepared if isinstance(clip, Clip))
    with timing.stage("infer"):
        outcomes = await shared.engine.run(encoder, prepared, windowing, share)
    prepared.clear()
    share.give(min(share.held, n_bytes))
    shared.metrics.observe_embedded(outcomes)
    return outcomes


def costs(request: Request, shared: Context) -> Costs:
    """What a request's work is counted against, whatever becomes of it."""
    return Costs(request.state.share, partial(shared.quotas.charge, request.state.caller))


def merged(query: P, fields: dict[str, Any]) -> P:
    """The query's parameters with the body's fields on top."""
    if not fields:
        return query
    try:
        return type(query).model_validate(query.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()[:MAX_ERRORS]) from None
