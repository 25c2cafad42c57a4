"""The process of a worker: it does jobs until a signal ends it, and may answer health checks."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext

import structlog
import uvicorn
from fastapi import FastAPI

from service import footprint
from service.app import create_app
from service.inference import worker
from service.listening import listen
from service.settings import Settings, SettingsError
from service.starting import starting
from service.telemetry import logs
from service.traffic.connections import bounded_protocol

log = structlog.get_logger()


def work(settings: Settings) -> None:
    """Do jobs until SIGTERM, SIGINT or SIGHUP; what is in hand then another worker takes.

    Raises:
        SettingsError: the settings name no store, or one that cannot be used; the port is taken;
            or too few files may be open.
        SystemExit: it cannot start.
    """
    if settings.data is None and settings.database_url is None:
        raise SettingsError(
            "there is no store of jobs: set VIOLA_DATA or VIOLA_DATABASE_URL as viola serve has it"
        )
    if not settings.job_workers:
        raise SettingsError("VIOLA_JOB_WORKERS=0 leaves nothing to do: use --jobs 1")
    logs.configure(settings.log_level)
    footprint.check(settings)
    port = settings.worker_port
    with nullcontext() if port is None else listen(settings.host, port) as listening:
        footprint.prepare(settings)
        asyncio.run(_until_told(create_app(settings, is_worker=True), settings, listening))
    if worker.any_busy():  # C++ aborts a process that ends around an inference
        os._exit(0)


async def _until_told(app: FastAPI, settings: Settings, listening: socket.socket | None) -> None:
    told = asyncio.Event()
    application = AsyncExitStack()
    with starting():
        await application.enter_async_context(app.router.lifespan_context(app))
    # Until now there was nothing to put down, and a start that hangs can be ended as well
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with application, _answering(app, settings, listening):
        log.info(
            "working",
            jobs_at_once=settings.job_workers,
            models=str(settings.models),
            port=None if listening is None else listening.getsockname()[1],
        )
        await told.wait()
        log.info("leaving")


class _Server(uvicorn.Server):
    """uvicorn in a process that handles signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


@asynccontextmanager
async def _answering(
    app: FastAPI, settings: Settings, listening: socket.socket | None
) -> AsyncIterator[None]:
    """Answer at the socket, where there is one, inside the block."""
    if listening is None:
        yield
        return
    http = bounded_protocol(
        settings.head_timeout_s, settings.idle_timeout_s, max_connections=settings.max_connections
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",  # the block around this one
        http=http,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
