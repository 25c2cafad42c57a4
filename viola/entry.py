"""Entry point of the `viola` command, and of `python -m viola`."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
    if sys.argv[1:2] == ["serve"]:  # it asks to read anew what has not been read yet
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _interruptible() as interrupted:
        from viola.commands import build  # takes half a second

        interrupted.listen()
        build()()


class _Interrupted:
    """What Ctrl-C does, unless a command answers it itself; nothing where it is ignored.

    Until `listen` it ends the process, which has done nothing yet. Then it raises
    KeyboardInterrupt, but not inside a callback of libsndfile: it would be lost there, and the file
    be taken for damaged.
    """

    def __init__(self) -> None:
        self.came = False
        self._again = threading.Timer(0, lambda: None)
        self._answered = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._answered:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def listen(self) -> None:
        """From now on there may be something to finish."""
        if self._answered:
            signal.signal(signal.SIGINT, self._raise)

    def leave(self) -> None:
        """From now on there is nothing to finish: Ctrl-C once more ends the process at once."""
        if self._answered:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if _is_in_callback(frame):
            if not self._again.is_alive():
                self._again = threading.Timer(CALLBACK_S, signal.raise_signal, (number,))
                self._again.daemon = True
                self._again.start()
            return
        self.came = True
        raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[_Interrupted]:
    """Whatever Ctrl-C breaks off, an import half done say, ends the command as Ctrl-C does."""
    interrupted = _Interrupted()
    try:
        yield interrupted
    except Exception:
        if not interrupted.came:
            raise
        sys.exit(ENDED_BY_SIGINT)
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
