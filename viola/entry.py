"""Entry point of the `viola` command, and of `python -m viola`."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What a shell says of whoever does
ENDED_BY_SIGINT = 128 + signal.SIGINT
ENDED_BY_SIGTERM = 128 + signal.SIGTERM
CALLBACK_S = 0.01  # after which a callback has ended


def main() -> None:
    """Run the command.

    As process 1, that of a container, it ends by SIGTERM from the beginning, as any other process
    does: the system keeps from process 1 what it has no handler for. Commands that have something
    to finish put handlers of their own in its place.
    """
    _open_standard_files()
    _print_any_name()
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)
    is_service = sys.argv[1:2] in (["serve"], ["worker"])
    if sys.argv[1:2] == ["serve"]:  # it asks to read anew what has not been read yet
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _interruptible(is_service) as interrupted:
        from viola.commands import build  # takes half a second

        interrupted.listen()
        build()()


class _Interrupted:
    """What Ctrl-C and SIGTERM do, unless a command answers them itself or they are ignored.

    Until `listen` they end the process, which has done nothing yet. Then they raise
    KeyboardInterrupt and SystemExit, so that what is half written is removed, but not inside a
    callback of libsndfile: there they would be lost, and the file be taken for damaged.

    Args:
        is_service: the command is a service, which SIGTERM ends at once until it is ready.
    """

    def __init__(self, is_service: bool) -> None:
        self.came = 0  # the number of the signal
        self._again = threading.Timer(0, lambda: None)
        self._at_once: dict[int, Any] = {}  # what ends the process, by signal
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._at_once[signal.SIGINT] = signal.SIG_DFL
        at_once = signal.getsignal(signal.SIGTERM)
        if not is_service and at_once is not signal.SIG_IGN:
            self._at_once[signal.SIGTERM] = at_once

    def listen(self) -> None:
        """From now on there may be something to finish."""
        for number in self._at_once:
            signal.signal(number, self._raise)

    def leave(self) -> None:
        """From now on there is nothing to finish: a signal once more ends the process at once."""
        for number, at_once in self._at_once.items():
            signal.signal(number, at_once)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if _is_in_callback(frame):
            if not self._again.is_alive():
                self._again = threading.Timer(CALLBACK_S, signal.raise_signal, (number,))
                self._again.daemon = True
                self._again.start()
            return
        self.came = number
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def _interruptible(is_service: bool) -> Iterator[_Interrupted]:
    """Whatever a signal breaks off, say an import half done, ends the command as it does."""
    interrupted = _Interrupted(is_service)
    try:
        yield interrupted
    except Exception:
        if not interrupted.came:
            raise
        sys.exit(128 + interrupted.came)
    except KeyboardInterrupt:
        sys.exit(ENDED_BY_SIGINT)
    finally:
        interrupted.leave()


def _is_in_callback(frame: FrameType | None) -> bool:
    """Whether one of the calls under way is a callback of the package soundfile."""
    while frame is not None:
        code = frame.f_code
        if code.co_name.startswith("vio_") and code.co_filename.endswith("soundfile.py"):
            return True
        frame = frame.f_back
    return False


def _open_standard_files() -> None:
    """Let those that are closed lead nowhere: else other files get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # at the lowest number that is free
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115


def _print_any_name() -> None:
    """Escape characters that the terminal or the pipe has no code for, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(ENDED_BY_SIGTERM)
