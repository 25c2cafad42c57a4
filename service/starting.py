"""Tells why a process cannot start: in one clear line of the log, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from service.errors import shortage
from service.exceptions import ServiceError
from service.settings import SettingsError

FAILED_TO_START = 3

log = structlog.get_logger()


@contextmanager
def starting() -> Iterator[None]:
    """Around all that has to work before there is a service, or a worker.

    Raises:
        SettingsError: raised inside, and left to the command to show.
        SystemExit: anything else went wrong; the log says what.
    """
    try:
        yield
    except SettingsError:
        raise
    except Exception as error:
        if short := shortage(error):
            remedy = (
                "raise `ulimit -u` (processes and threads), `ulimit -n` (open files), `ulimit -v` "
                "or the memory, or the limits of the container"
            )
            log.error("not started", reason=short.detail, remedy=remedy)
        elif isinstance(error, ServiceError):
            log.error("not started", reason=error.message)
        else:
            log.exception("not started")
        raise SystemExit(FAILED_TO_START) from None
