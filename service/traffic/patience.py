"""How long a request is worked on: until its deadline, and while somebody waits for the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.problems import Problem

P = ParamSpec("P")
T = TypeVar("T")


async def within(timeout_s: float, work: Awaitable[T]) -> T:
    """What `work` returns; when the time is up it is cancelled, wherever it is.

    Raises:
        Problem: it took longer.
    """
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise Problem(
            "deadline",
            f"The answer was not ready within {timeout_s:g} s; what had not run was dropped.",
            limit=timeout_s,
            unit="s",
        ) from None


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, which is cancelled if the client goes; its body has been read.

    Raises:
        ClientDisconnect: nobody waits for the answer any more.
    """
    working, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait([working])


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `call` returns, run in a thread.

    A thread cannot be cancelled: where the request is, this waits until the thread has ended, so
    that the places and the memory of the request are not given to others before.
    """
    return await to_the_end(asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs)))


async def to_the_end(
    work: "asyncio.Future[T]", hurry: Callable[[], None] | None = None, after_s: float = 0.0
) -> T:
    """What `work` returns; a cancellation is passed on once the work has ended by itself.

    Args:
        work: goes on whatever happens here.
        hurry: is called `after_s` after the cancellation, to make the work end.
        after_s: seconds.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        timer = hurry and asyncio.get_running_loop().call_later(after_s, hurry)
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if timer:
            timer.cancel()
        if not work.cancelled():
            work.exception()  # nobody waits for it any more
        raise


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
