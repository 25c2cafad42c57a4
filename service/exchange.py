"""What all routes that take audio have in common: receive, decode, embed, and time each stage."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

import structlog
from fastapi import Request, Response
from pydantic import BaseModel

from models.runtime import Encoder
from models.selection import WHOLE, Selection
from service.clips import Clip, Embedded
from service.context import Context
from service.errors import as_problem
from service.exceptions import Failure
from service.formats.json_body import validated
from service.inference.windowing import Windowing
from service.settings import Settings
from service.telemetry.timing import Timing
from service.threads import in_thread
from service.traffic.budget import Costs
from service.traffic.patience import while_connected, within
from service.uploads.body import Body, Parse, read_body

FEW_VECTORS = 4  # are written faster than a thread takes over and hands back

log = structlog.get_logger()

A = ParamSpec("A")
P = TypeVar("P", bound=BaseModel)
B = TypeVar("B", bound=Body)
Answer = Callable[[B, P, Timing], Coroutine[Any, Any, Response]]
Receive = Callable[[Request, Settings], Awaitable[Parse[B]]]


async def exchange(
    request: Request, shared: Context, query: P, answer: Answer[Body, P]
) -> Response:
    """Receive the files of a form, or one file as the body, and answer; see `exchange_with`."""
    return await exchange_with(read_body, request, shared, query, answer)


async def exchange_with(
    receive: Receive[B], request: Request, shared: Context, query: P, answer: Answer[B, P]
) -> Response:
    """Receive a request's body by `receive` and answer it, in one of the places for requests.

    The request's deadline is for the work after the body has arrived, parsing included. That work
    also ends if the client disconnects.

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
) -> list[Embedded | Failure]:
    """The vectors of each file, or what is wrong with it.

    Raises:
        ServiceError: too many windows, or memory is full.
    """
    share = request.state.share
    prepared = await decode(request, shared, body, timing, selection=selection, measured=measured)
    n_bytes = sum(clip.samples.nbytes for clip in prepared if isinstance(clip, Clip))
    with timing.stage("infer"):
        outcomes = await shared.engine.run(encoder, prepared, windowing, share)
    prepared.clear()
    share.give(min(share.held, n_bytes))
    embedded = [item for item in outcomes if isinstance(item, Embedded)]
    shared.metrics.observe_embedded(
        sum(item.duration_s for item in embedded), sum(item.n_windows for item in embedded)
    )
    return outcomes


async def decode(
    request: Request,
    shared: Context,
    body: Body,
    timing: Timing,
    *,
    selection: Selection = WHOLE,
    measured: bool = False,
) -> list[Clip | Failure]:
    """The samples of each file, or what is wrong with it."""
    given = costs(request, shared)
    with timing.stage("decode"):
        prepared = await shared.engine.prepare(body.uploads, given, selection, measured=measured)
    _note_decoded(shared, prepared)
    return prepared


async def rendered(
    timing: Timing,
    n_vectors: int,
    write: Callable[A, Response],
    *args: A.args,
    **kwargs: A.kwargs,
) -> Response:
    """The answer that `write` makes of so many vectors; in a thread unless they are few."""
    with timing.stage("render"):
        if n_vectors <= FEW_VECTORS:
            return write(*args, **kwargs)
        return await in_thread(write, *args, **kwargs)


def n_vectors(outcomes: Sequence[Embedded | Failure]) -> int:
    """How many vectors the files of a request have."""
    return sum(item.n_vectors for item in outcomes if isinstance(item, Embedded))


def _note_decoded(shared: Context, prepared: Sequence[Clip | Failure]) -> None:
    """Count the audio of a request's files; log and count those that cannot be used."""
    refused = []
    for index, item in enumerate(prepared):
        if not isinstance(item, Clip):
            refused.append(as_problem(item).kind.slug)
            log.info("file refused", problem=refused[-1], file_index=index)
    audio_s = sum(item.duration_s for item in prepared if isinstance(item, Clip))
    shared.metrics.observe_decoded(audio_s, refused)


def costs(request: Request, shared: Context) -> Costs:
    """Where a request's memory and its seconds of audio are counted, whatever becomes of it."""
    return Costs(request.state.share, partial(shared.quotas.charge, request.state.caller))


def merged(query: P, fields: dict[str, Any]) -> P:
    """The query's parameters with the body's fields on top."""
    if not fields:
        return query
    return validated(type(query), query.model_dump(exclude_unset=True) | fields)
