"""A thread that computes one thing at a time, and can be left behind when it hangs."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

NICENESS = 5

T = TypeVar("T")


class Lane:
    """One thread for what blocks.

    `concurrent.futures` would wait for it when the process ends, however long it hangs.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
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
            work()
            del work  # and with it the arrays of the last call


def _yield_to_the_loop() -> None:
    """Let the event loop go first where both want a core: it has little to do, and others wait."""
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
