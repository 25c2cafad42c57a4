"""What all routes that take audio have in common: receive, decode, embed, and time each stage."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from models.runtime import Encoder
from service.context import Context
from service.engine import Embedded, Windowing
from service.problems import Problem
from service.timing import Timing
from service.uploads import Body, read_body

P = TypeVar("P", bound=BaseModel)
Answer = Callable[[Body, P, Timing], Awaitable[Response]]


async def exchange(request: Request, shared: Context, query: P, answer: Answer[P]) -> Response:
    """Receive a request's body in one of the places there are, and answer it.

    Raises:
        Problem: whatever is wrong with the body, and what `answer` raises.
    """
    timing = Timing()
    with shared.admission.slot():
        with timing.stage("receive"):
            body = await read_body(request, shared.settings)
        response = await answer(body, _merged(query, body.fields), timing)
    response.headers["Server-Timing"] = timing.header()
    return response


async def embed(
    request: Request,
    shared: Context,
    encoder: Encoder,
    body: Body,
    windowing: Windowing | None,
    timing: Timing,
) -> list[Embedded | Problem]:
    """The vectors of each file, or what is wrong with it.

    Raises:
        ClientDisconnect: nobody waits for the answer any more.
        Problem: too many windows.
    """
    with timing.stage("decode"):
        prepared = await shared.engine.prepare(body.uploads)
    if await request.is_disconnected():
        raise ClientDisconnect
    with timing.stage("infer"):
        return await shared.engine.run(encoder, prepared, windowing)


def _merged(query: P, fields: dict[str, str]) -> P:
    """The query's parameters with the form's fields on top."""
    if not fields:
        return query
    try:
        return type(query).model_validate(query.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
