"""Entry point of the `viola` command, and of `python -m viola`."""

import os
import signal
import sys
from types import FrameType

ENDED_BY_SIGTERM = 128 + signal.SIGTERM  # what a shell says of whoever does


def main() -> None:
    """Run the command.

    As process 1, that of a container, it ends by SIGTERM from the beginning, as any other process
    does: the system keeps from process 1 what it has no handler for. Commands that have something
    to finish put handlers of their own in its place.
    """
    _open_standard_files()
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)
    from viola.commands import build  # takes half a second

    build()()


def _open_standard_files() -> None:
    """Let those that are closed lead nowhere: else other files get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # at the lowest number that is free
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(ENDED_BY_SIGTERM)
