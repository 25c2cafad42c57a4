"""SIGHUP during a start, which would end the process: it reloads once the service has started."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

came = Event()


@contextmanager
def kept() -> Iterator[None]:
    """Inside the block `came` tells whether there was one; whoever serves may put a handler here.

    A handler, for signals that are blocked reach the threads that are there already.
    """
    came.clear()
    before = signal.signal(signal.SIGHUP, lambda *_: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
