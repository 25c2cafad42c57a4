"""Entry point of the `viola` command, and of `python -m viola`."""

import os
import signal
from types import FrameType

ENDED_BY_SIGTERM = 128 + signal.SIGTERM  # what a shell says of whoever does


def main() -> None:
    """Run the command.

    As process 1, that of a container, it ends by SIGTERM from the beginning, as any other process
    does: the system keeps from process 1 what it has no handler for. Commands that have something
    to finish put handlers of their own in its place.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)
    from viola.commands import build  # takes half a second

    build()()


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(ENDED_BY_SIGTERM)
