"""Logs: one JSON object a line, or readable lines where a person watches."""

import json
import logging
import sys
from typing import Any

import orjson
import structlog

from service.telemetry.log_stream import stream_of


def configure(level: str) -> None:
    """Send this process's logs to stderr, ours and those of the libraries alike.

    Libraries tell no details: those are what clients send, keys among it, and whom we call.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream_of(sys.stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(is_watched=sys.stderr.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("service").setLevel(level.upper())
    logging.getLogger("httpx").setLevel(logging.WARNING)  # below: the addresses of webhooks


def to_stderr() -> None:
    """Send what a command logs beside its output to stderr, wherever that leads at the time."""
    if not structlog.is_configured():
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def _renderers(*, is_watched: bool) -> list[Any]:
    if is_watched:
        plain = structlog.dev.plain_traceback  # the rich one prints variables: names, samples
        return [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]


def _dumps(event: Any, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a file's name that is not UTF-8
        line = json.dumps(event, default=str, ensure_ascii=False)
        return line.encode(errors="replace").decode()
