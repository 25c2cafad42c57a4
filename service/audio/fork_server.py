"""The process that decoders are forked from: it has loaded their libraries, so a fork takes ms.

`forks.py` starts it and asks it for children; it never reads an audio file itself. It writes a byte
when it is ready. From then on each byte that it receives asks for a child, and carries open files:
the child's stdin, stdout and stderr, a pipe for reports, and perhaps the file of a recording. To
the pipe for reports it writes the process id of the child, or the negative errno of a fork that
failed, and later the exit code of the child: eight bytes each.
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

REPORT = struct.Struct("<q")
N_FILES = 4  # that come with each request: the child's three standard files, the pipe for reports
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
    reports: dict[int, int] = {}  # by process id, the pipe for the exit code of a child that runs
    while True:
        ready, _, _ = select([requests, woken], [], [])
        if woken in ready:
            woken.recv(4_096)
            _report_exits(reports)
        if requests in ready:
            message, files, _, _ = socket.recv_fds(requests, 1, N_FILES + 1)
            if not message:
                return
            _fork(files, reports, work)


def _fork(files: list[int], reports: dict[int, int], work: Callable[[], None]) -> None:
    if len(files) < N_FILES:  # there was no room for all of them; the end of file tells
        _close(files)
        return
    report = files.pop(N_FILES - 1)
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        _become_child(files, work)
    # Before the report: from then on only the child has them open, so that they close when it ends
    _close(files)
    with suppress(OSError):  # nobody may read it any more
        os.write(report, REPORT.pack(pid))
    if pid > 0:
        reports[pid] = report
    else:
        os.close(report)


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


def _report_exits(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        report = reports.pop(pid)
        with suppress(OSError):
            os.write(report, REPORT.pack(os.waitstatus_to_exitcode(status)))
        os.close(report)


if __name__ == "__main__":
    main()
