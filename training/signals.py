"""How a run is asked to stop: SIGINT, SIGTERM and SIGHUP let the step under way end."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AT_ONCE_S = 1.0  # torchrun sends on what the terminal has sent to all processes already


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that the signals set; the step under way ends first.

    Another signal, later than at once, acts as usual.
    """
    stop = threading.Event()
    asked_at = 0.0
    previous: dict[signal.Signals, Any] = {}

    def request_stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if stop.is_set() and time.monotonic() - asked_at > AT_ONCE_S:
            signal.signal(number, previous[signal.Signals(number)])
            signal.raise_signal(number)
            return
        if number == signal.SIGHUP:
            _leave_terminal()
        if not stop.is_set():
            asked_at = time.monotonic()
            stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ignored = signal.getsignal(number) is signal.SIG_IGN
            if not (ignored and number == signal.SIGHUP):  # as nohup has it
                previous[number] = signal.signal(number, request_stop)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Print nowhere if the terminal is gone: each line would be an error that ends the run."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        try:
            os.write(number, b"")
        except OSError:
            os.dup2(nowhere, number)
    os.close(nowhere)
