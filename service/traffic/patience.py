"""Ends the work for a request at its deadline, and when the client disconnects."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.problems import Problem

T = TypeVar("T")


async def within(timeout_s: float, work: Awaitable[T]) -> T:
    """Await `work`; it is cancelled when the time is up.

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
    """Await `work`; it is cancelled if the client disconnects. The body must have been read.

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


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
