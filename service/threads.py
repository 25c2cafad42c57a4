"""Threads that are there from the start, so that a system without room for more stops nothing."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier


def started(pool: ThreadPoolExecutor, n_threads: int) -> ThreadPoolExecutor:
    """The pool with all of its threads running: by itself it starts one when work comes.

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
