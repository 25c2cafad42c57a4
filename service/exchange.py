"""What all routes that take audio have in common: receive, decode, embed, and time each stage."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from models.audio import WHOLE, Selection
from models.runtime import Encoder
from service.audio.uploads import Body, read_body
from service.context import Context
from service.engine import Embedded, Windowing
from service.problems import Problem
from service.settings import Settings
from service.telemetry.timing import Timing
from service.traffic.patience import while_connected, within

P = TypeVar("P", bound=BaseModel)
B = TypeVar("B", bound=Body)
Answer = Callable[[B, P, Timing], Coroutine[Any, Any, Response]]
Receive = Callable[[Request, Settings], Awaitable[B]]


async def exchange(
    request: Request, shared: Context, query: P, answer: Answer[Body, P]
) -> Response:
    """Receive a request's files in one of the places there are, and answer it; see `converse`."""
    return await converse(request, shared, read_body, query, answer)


async def converse(
    request: Request, shared: Context, receive: Receive[B], query: P, answer: Answer[B, P]
) -> Response:
    """Receive a request's body by `receive` in one of the places there are, and answer it.

    Raises:
        Problem: whatever is wrong with the body, what `answer` raises, or that it takes too long.
        ClientDisconnect: nobody waits for the answer any more.
    """
    timing = Timing(shared.tracer)
    try:
        with shared.admission.slot():
            with timing.stage("receive"):
                body = await receive(request, shared.settings)
            shared.metrics.files.observe(len(body.uploads))
            work = answer(body, merged(query, body.fields), timing)
            timeout_s = shared.settings.request_timeout_s
            response = await while_connected(request, within(timeout_s, work))
    finally:
        shared.metrics.observe_stages(timing.seconds)
    response.headers["Server-Timing"] = timing.header()
    return response


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
    with timing.stage("decode"):
        prepared = await shared.engine.prepare(body.uploads, selection, measured=measured)
    audio_s = shared.metrics.observe_decoded(prepared)
    shared.quotas.charge(request.state.caller, audio_s)
    if await request.is_disconnected():
        raise ClientDisconnect
    with timing.stage("infer"):
        outcomes = await shared.engine.run(encoder, prepared, windowing)
    shared.metrics.observe_embedded(outcomes)
    return outcomes


def merged(query: P, fields: dict[str, Any]) -> P:
    """The query's parameters with the body's fields on top."""
    if not fields:
        return query
    try:
        return type(query).model_validate(query.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
