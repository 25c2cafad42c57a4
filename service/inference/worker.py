"""A thread that computes one thing at a time, and can be left behind when it hangs."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar
from weakref import WeakSet

NICENESS = 5

T = TypeVar("T")

_workers: "WeakSet[Worker]" = WeakSet()


class Worker:
    """One daemon thread that runs calls one after the other.

    `concurrent.futures` would wait for a thread that hangs when the process ends.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.is_busy = False
        _workers.add(self)
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Start `call` as soon as the thread is free; to be awaited on the loop that asks."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = call()
            except Exception as error:
                settle = _settled(future, error=error)
            else:
                settle = _settled(future, result=result)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle)

        self._work.put(work)
        return future

    def close(self) -> None:
        """Let the thread end once it has done what it was given."""
        self._work.put(None)

    def _serve(self) -> None:
        _yield_to_the_loop()
        while (work := self._work.get()) is not None:
            self.is_busy = True
            work()
            self.is_busy = False
            del work  # and with it the arrays of the last call


def any_busy() -> bool:
    """Whether some worker of this process computes."""
    return any(worker.is_busy for worker in _workers)


def _yield_to_the_loop() -> None:
    """Lower this thread's priority: the event loop has little to do, and goes first."""
    if sys.platform == "linux":  # where threads have priorities of their own
        thread = threading.get_native_id()
        usual = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, usual + NICENESS)


def _settled(
    future: "asyncio.Future[T]", *, result: T | None = None, error: Exception | None = None
) -> Callable[[], None]:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    return settle
