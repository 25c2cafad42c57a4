"""Work in threads: pools whose threads are there from the start, and calls that are waited for.

A system without room for another thread then stops nothing that the service has begun.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import wraps
from threading import Barrier
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

_END = object()


def started(pool: ThreadPoolExecutor, n_threads: int) -> ThreadPoolExecutor:
    """Start all threads of a pool now; by itself it starts each when work comes.

    Raises:
        RuntimeError: the system has no room for them.
    """
    meeting = Barrier(n_threads)
    try:
        for _ in range(n_threads):
            pool.submit(meeting.wait)
    except RuntimeError:
        meeting.abort()
        raise
    return pool


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a thread and return what it returns.

    A thread cannot be cancelled: where the request is, this waits until the thread has ended, so
    that the places and the memory of the request are not given to others before.
    """
    work = asyncio.to_thread(no_stop_iteration(call), *args, **kwargs)
    return await to_the_end(asyncio.ensure_future(work))


async def one_by_one(values: Iterator[T]) -> AsyncGenerator[T, None]:
    """Values, each of which is made in a thread when it is asked for."""
    while (value := await in_thread(next, values, _END)) is not _END:
        yield cast(T, value)


def no_stop_iteration(call: Callable[P, T]) -> Callable[P, T]:
    """Wrap a call for a thread, so that its `StopIteration` becomes a `RuntimeError`.

    A future cannot hold one: whoever awaits it would wait for ever.
    """

    @wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except StopIteration as error:
            raise RuntimeError(f"{call!r} ran out of what it takes one by one") from error

    return guarded


async def to_the_end(
    work: "asyncio.Future[T]", hurry: Callable[[], None] | None = None, after_s: float = 0.0
) -> T:
    """Await `work`; a cancellation waits until the work has ended.

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
