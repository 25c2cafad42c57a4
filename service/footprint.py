"""What the process asks of the system: to get memory back, to open files, and room for it all."""

import ctypes
import resource
from contextlib import suppress

import structlog

from models.machine import available_memory
from service.audio import decode_child
from service.settings import Settings, SettingsError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
LARGE_BYTES = 256 << 10  # a block of memory that goes back to the system as soon as it is free
ARENAS = 2  # each keeps what was freed in it; threads beyond that share them
FILES_A_DECODER = 4  # its pipes and its file
FILES_BESIDE = 64  # models, logs, and what libraries open

log = structlog.get_logger()


def prepare(settings: Settings) -> None:
    """Keep the memory of the process close to what it uses, and let it open enough files."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * LARGE_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)
    _allow_files(needed_files(settings))
    if not decode_child.STATM.exists():
        log.warning(
            "decoders may take any memory",
            reason=f"{decode_child.STATM} is not there, by which it is limited",
            remedy="on Linux, mount /proc",
        )


def warn_of_memory(settings: Settings) -> None:
    """Tell the log if the machine, or the container, has less memory than these settings may take.

    To be called once the models are loaded. The decoders come on top of it.
    """
    needed, allowed = needed_bytes(settings), available_memory()
    if allowed < needed:
        log.warning(
            "the memory may not suffice",
            reason=f"these settings may take {_mib(needed)}, and {_mib(allowed)} are allowed: the "
            "system would then kill the service",
            remedy="allow more, or lower VIOLA_MEMORY_BYTES, or, of collections, "
            "VIOLA_SEARCH_MEMORY_BYTES and VIOLA_FIT_MEMORY_BYTES",
        )


def needed_bytes(settings: Settings) -> int:
    """Bytes that are resident now, and those that requests, searches and a fit may still take."""
    needed = decode_child.memory()[0] + settings.memory_bytes
    if settings.data is not None or settings.database_url is not None:
        needed += settings.fit_memory_bytes * settings.max_fits
    if settings.data is not None and settings.database_url is None:
        needed += settings.search_memory_bytes
    return needed


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:.0f} MiB"


def check(settings: Settings) -> None:
    """Refuse a limit of open files with which nothing would be ready, or no audio decoded.

    Raises:
        SettingsError: it is that low.
    """
    hard, least = resource.getrlimit(resource.RLIMIT_NOFILE)[1], needed_files(settings, 1)
    if resource.RLIM_INFINITY != hard < least:
        raise SettingsError(
            f"{hard} files may be open, and these settings need {least} for one connection and "
            f"{needed_files(settings)} for all: raise `ulimit -n` (LimitNOFILE= of systemd, "
            "--ulimit nofile= of docker)"
        )


def needed_files(settings: Settings, n_connections: int | None = None) -> int:
    """How many files and sockets are open at the most, else with so many connections."""
    connections = settings.max_connections if n_connections is None else n_connections
    decoders = settings.decode_workers + settings.max_streams + settings.job_workers
    return connections + FILES_A_DECODER * decoders + FILES_BESIDE


def _allow_files(n_files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= n_files:
        return
    allowed = n_files if hard == resource.RLIM_INFINITY else min(n_files, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < n_files:
        log.warning(
            "too few files may be open",
            allowed=allowed,
            needed=n_files,
            remedy="raise `ulimit -n`, or lower VIOLA_MAX_CONNECTIONS",
        )
