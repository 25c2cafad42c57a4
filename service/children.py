"""Child processes: how they start, and what they get of this one, which is nothing secret."""

import os
import signal
import subprocess
import sys

INHERITED = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "SYSTEMROOT")
SIGNALS_OF_A_GROUP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def spawn(
    module: str,
    *arguments: str,
    environment: dict[str, str] | None = None,
    stdin: int,
    stdout: int,
) -> "subprocess.Popen[bytes]":
    """Start a module of ours as a child, whose stderr is a pipe, by `posix_spawn` alone.

    Where the system has no room for a process, `Popen` would try `fork` as well. Before a fork
    OpenBLAS ends its threads, and where it then gets no new ones it raises SIGINT, which would end
    the service. Ctrl-C reaches the whole group, and this process answers it: the child starts with
    such signals blocked, and then ignores them.

    Raises:
        OSError: there is no room for one, or no Python.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_A_GROUP)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=child_environment() | (environment or {}),
            close_fds=False,  # else it forks; what Python opens closes by itself
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def child_environment() -> dict[str, str]:
    """The child's environment, without the service's settings, which hold keys."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    single |= {"MALLOC_MMAP_THRESHOLD_": str(1 << 18), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
    return inherited | single | {"PYTHONPATH": os.pathsep.join(_search_path())}


def _search_path() -> list[str]:
    """Where modules are found; relative folders keep Python from starting where cwd is deleted."""
    try:
        return [os.path.abspath(folder) for folder in sys.path]
    except FileNotFoundError:  # the current folder was deleted
        return [folder for folder in sys.path if os.path.isabs(folder)]
