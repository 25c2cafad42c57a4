"""The process that decoders are forked from: it has loaded their libraries, so a fork takes ms.

`forks.py` starts it and asks it for children; it never sees a file itself. It says a byte when it
is ready. Then each byte that it gets asks for a child, and brings the open files that become the
child's input, output and error, one on which this process tells of the child, and perhaps the file
of a recording. On that one it writes the number of the child, or the negative errno of what failed,
and later, once the child has ended, its exit code: eight bytes each.
"""

import gc
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from select import select
from traceback import print_exc

from service.audio.decode_child import RECORDING, decode_all, warm_up

TOLD = struct.Struct("<q")
N_FILES = 4  # that a child has with it: its three standard files, and the one to tell of it
MAX_FILES = 4_096  # one for each child; a child closes all numbers below
NICENESS = 5  # of children: the event loop that they work for goes first


def main() -> None:
    """Load what decoders need, then fork one whenever one is asked for."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # systemd sends it to all at once; the files go first
    requests = socket.socket(fileno=os.dup(0))  # what is asked for comes on stdin
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, MAX_FILES), hard))
    warm_up()
    if find_spec("av"):  # of the extra `media`
        import_module("av")
    gc.collect()
    gc.freeze()  # so that the children share what is there
    requests.sendall(b"!")
    serve(requests, decode_all)


def serve(requests: socket.socket, work: Callable[[], None]) -> None:
    """Fork children that do `work`, until the socket is closed."""
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: dict[int, int] = {}  # where to tell of each child
    while True:
        ready, _, _ = select([requests, woken], [], [])
        if woken in ready:
            woken.recv(4_096)
            _tell_of_the_ended(told)
        if requests in ready:
            message, files, _, _ = socket.recv_fds(requests, 1, N_FILES + 1)
            if not message:
                return
            _fork(files, told, work)


def _fork(files: list[int], told: dict[int, int], work: Callable[[], None]) -> None:
    if len(files) < N_FILES:  # there was no room for all of them: whoever asked reads an end
        _close(files)
        return
    tell = files.pop(N_FILES - 1)
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        _become_child(files, work)
    # Before it is told: then the child alone has them, and its end is theirs whatever comes
    _close(files)
    with suppress(OSError):  # nobody may wait for it any more
        os.write(tell, TOLD.pack(pid))
    if pid > 0:
        told[pid] = tell
    else:
        os.close(tell)


def _close(files: list[int]) -> None:
    for fd in files:
        os.close(fd)


def _become_child(given: list[int], work: Callable[[], None]) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, fd in enumerate(given[:3]):
            os.dup2(fd, number)
        if recording := given[3:]:
            os.dup2(recording[0], RECORDING)
        os.closerange(3, RECORDING)
        os.closerange(RECORDING + bool(recording), os.sysconf("SC_OPEN_MAX"))
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        work()
        code = 0
    except BrokenPipeError:  # nobody takes the answers any more
        pass
    except BaseException:
        print_exc()
    finally:
        os._exit(code)  # nothing that was made before the fork is cleared up twice


def _tell_of_the_ended(told: dict[int, int]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        tell = told.pop(pid)
        with suppress(OSError):
            os.write(tell, TOLD.pack(os.waitstatus_to_exitcode(status)))
        os.close(tell)


if __name__ == "__main__":
    main()
