"""The process around the application: uvicorn, with our logs, a bounded drain, and SIGHUP."""

import asyncio
import errno
import ipaddress
import os
import signal
import socket
import threading
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service import footprint
from service.app import create_app
from service.inference import lane
from service.inference.reloading import reload
from service.settings import Settings, SettingsError
from service.streams.live import MAX_MESSAGE_BYTES
from service.telemetry import logs
from service.traffic.connections import bounded_protocol
from service.traffic.gate import Guards
from service.traffic.sockets import bounded_socket

WS_QUEUE = 2  # messages of a live stream in memory that are still to be dealt with
CANCEL_S = 1  # what requests get that are still in hand when the drain is over
GIVE_UP_S = 5  # and after that, threads that hang do not keep the process
FAILED_TO_START = 3

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests in hand then have `shutdown_timeout_s` to finish.

    Raises:
        SettingsError: the API keys cannot be used, or another process listens at that port.
        SystemExit: it cannot start.
    """
    app = create_app(settings)  # refuses keys that cannot be used, before there is a socket
    with listen(settings.host, settings.port) as listening:
        _serve(app, settings, listening)


def _serve(app: FastAPI, settings: Settings, listening: socket.socket) -> None:
    footprint.prepare(settings)
    logs.configure(settings.log_level)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listening.getsockname()[1]}"
    _announce(settings, app.state.guards, address)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn's messages take the way of ours
        access_log=False,  # the request's own line says more
        server_header=False,
        http=bounded_protocol(
            settings.head_timeout_s,
            settings.idle_timeout_s,
            max_connections=settings.max_connections,
        ),
        ws=bounded_socket(settings.idle_timeout_s),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_max_queue=WS_QUEUE,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=CANCEL_S,
    )
    server = Server(config, app, address)
    server.run(sockets=[listening])
    if not server.started:
        raise SystemExit(FAILED_TO_START)
    if lane.any_busy():  # the drain was cut short, and C++ aborts a process that ends around it
        log.warning("an inference is left behind")
        os._exit(0)


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on, taken before anything that takes time.

    Raises:
        SettingsError: it cannot be had, and what to do about it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SettingsError(_why_not(host, port, error)) from error
    return listening


def _why_not(host: str, port: int, error: OSError) -> str:
    """Why it cannot listen there, and the remedy."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another process: end it, or choose another port "
            "with --port or VIOLA_PORT"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user: choose one above 1023 with --port"
    return f"it cannot listen on {host}, port {port}: {error.strerror or error}"


class Server(uvicorn.Server):
    """uvicorn that leaves in steps, exits with 0 when told to go, and reloads on SIGHUP."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, address: str) -> None:
        super().__init__(config)
        self.app = app
        self.address = address
        guards: Guards = app.state.guards
        self.drain = guards.drain
        self._reload = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to go."""
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load and listen; the last line of a start says where, and what to try."""
        await super().startup(sockets)
        if self.started:
            log.info(
                "ready" if self.app.state.context.catalogue.is_ready else "listening, not ready",
                address=self.address,
                docs=f"{self.address}/docs",
                try_it=f"curl -F file=@clip.wav {self.address}/v1/audio/embeddings",
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; a second signal ends it at once. Nothing is raised again: exit code 0."""
        if self.drain.has_begun:
            self.should_exit = self.force_exit = True
            return
        self.drain.begin(at_once=sig == signal.SIGINT)  # a person at the keyboard need not wait
        give_up = threading.Timer(self.drain.timeout_s + CANCEL_S + GIVE_UP_S, _give_up)
        give_up.daemon = True
        give_up.start()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to go."""
        if self.drain.is_over(len(self.server_state.tasks)):
            self.should_exit = True
        return await super().on_tick(counter)

    def _on_hangup(self) -> None:
        task = asyncio.ensure_future(self._reload_in_turn())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_in_turn(self) -> None:
        async with self._reload:
            if not hasattr(self.app.state, "context"):
                log.warning("nothing to reload yet")
            else:
                await reload(self.app.state.context, self.app.state.guards.keyring)


def _announce(settings: Settings, guards: Guards, address: str) -> None:
    """Say where it will be, and warn of what an operator would not want to find out later."""
    log.info(
        "starting",
        address=address,
        docs=f"{address}/docs",
        models=str(settings.models),
        keys=len(guards.keyring.keys),
    )
    if not guards.keyring and not _is_loopback(settings.host):
        log.warning(
            "no API keys: whoever reaches this address may use the service",
            host=settings.host,
            remedy="viola key NAME makes one; VIOLA_API_KEYS_FILE names the file of their hashes",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _give_up() -> None:
    """The last resort, where a thread hangs that Python would wait for."""
    log.error("not ended in time; something hangs")
    os._exit(1)
