"""The process around the application: uvicorn, with our logs, a bounded drain, and SIGHUP."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from time import sleep
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service import footprint, hangups
from service.app import create_app
from service.collecting import Collecting
from service.inference import worker
from service.listening import listen
from service.reloading import reload
from service.settings import Settings
from service.starting import starting
from service.streams.live import MAX_MESSAGE_BYTES
from service.telemetry import logs
from service.traffic.connections import bounded_protocol
from service.traffic.gate import Gate
from service.traffic.origins import is_loopback
from service.traffic.sockets import bounded_socket

LEAST_STREAMS = 16  # whose messages have room, however few may be
WS_QUEUE = 2  # messages of a live stream in memory that are still to be dealt with
CANCEL_S = 1  # what requests get that are still in hand when the drain is over
TICK_S = 0.05  # between two looks whether a request is still in hand
GIVE_UP_S = 5  # and after that, threads that hang do not keep the process

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests in hand then have `shutdown_timeout_s` to finish.

    Raises:
        SettingsError: the API keys or the place of collections cannot be used, too few files may be
            open, or another process listens at that port.
        SystemExit: it cannot start.
    """
    logs.configure(settings.log_level)
    footprint.check(settings)
    app = create_app(settings)  # refuses keys that cannot be used, before there is a socket
    with listen(settings.host, settings.port) as listening:
        Collecting.count(settings)  # only now: it may change the tables of whoever has the port
        _serve(app, settings, listening)


def _serve(app: FastAPI, settings: Settings, listening: socket.socket) -> None:
    footprint.prepare(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listening.getsockname()[1]}"
    _announce(settings, app.state.gate, address)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn's messages take the way of ours
        access_log=False,  # the request's own line says more
        server_header=False,
        lifespan="off",  # `startup` and `shutdown` below
        http=bounded_protocol(
            settings.head_timeout_s,
            settings.idle_timeout_s,
            max_connections=settings.max_connections,
        ),
        # Of streams with audio each has at most a message that is taken next, and part of another
        ws=bounded_socket(
            settings.idle_timeout_s,
            2 * MAX_MESSAGE_BYTES * max(LEAST_STREAMS, settings.max_live_streams),
        ),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_max_queue=WS_QUEUE,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=CANCEL_S,
    )
    server = Server(config, app, address)
    server.run(sockets=[listening])
    if worker.any_busy():  # the drain was cut short, and C++ aborts a process that ends around it
        log.warning("an inference is left behind")
        os._exit(0)


class Server(uvicorn.Server):
    """uvicorn with a graceful shutdown, exit code 0 after a signal, and a reload on SIGHUP."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, address: str) -> None:
        super().__init__(config)
        self.app = app
        self.address = address
        gate: Gate = app.state.gate
        self.drain = gate.drain
        self._application = AsyncExitStack()
        self._signals = ExitStack()  # ours in the place of those that were there
        self._is_told = threading.Event()
        self._hung_up = asyncio.Event()
        self._known: set[asyncio.Task[None]] | None = None  # in hand when they were last counted

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to go."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up.set)
        if hangups.came.is_set():
            self._hung_up.set()
        await super().serve(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture signals from the end of `startup` on; before, any signal ends the process."""
        with self._signals:
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load and listen; the last line of a start says where, and what to try.

        Raises:
            SettingsError: the settings cannot be used.
            SystemExit: it cannot start.
        """
        with starting():
            # Now: when it is needed there may be no room for a thread
            threading.Thread(target=self._end_in_time, name="end in time", daemon=True).start()
            lifespan = self.app.router.lifespan_context(self.app)
            await self._application.enter_async_context(lifespan)
            await super().startup(sockets)
        self._signals.enter_context(super().capture_signals())
        self._reloading = asyncio.create_task(self._reload_when_told())
        told = {"address": self.address, "docs": f"{self.address}/docs"}
        if self.app.state.context.catalogue.is_ready:
            command = f"curl -F file=@clip.wav {self.address}/v1/audio/embeddings"
            log.info("ready", **told, try_it=command)
        else:
            log.info("listening, not ready", **told, why=f"{self.address}/readyz")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, and end the application, unless it is to end at once."""
        self._reloading.cancel()
        if not self.force_exit:
            await self._answer_the_last(sockets or [])
        await super().shutdown(sockets)
        if not self.force_exit:
            try:
                await self._application.aclose()
            except Exception:  # it ends all the same
                log.exception("not everything ended as it should")

    async def _answer_the_last(self, sockets: list[socket.socket]) -> None:
        """Stop to listen, and answer what comes on connections that are there.

        Also on those that nobody has accepted yet, whose clients may have sent a request: the
        system resets what a listener leaves behind.
        """
        waiting = [accepted for listening in sockets for accepted in _accepted(listening)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            with suppress(OSError):  # it has gone
                await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(0)  # until those know it that the loop has accepted by itself
        for known in list(self.server_state.connections):
            known.shutdown()
        while not (self.force_exit or self.drain.is_over(len(self.server_state.tasks))):
            await asyncio.sleep(TICK_S)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; a second signal ends it at once. Nothing is raised again: exit code 0."""
        if self.drain.has_begun:
            self.should_exit = self.force_exit = True
            return
        self.drain.begin(at_once=sig == signal.SIGINT)  # a person at the keyboard need not wait
        self._is_told.set()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the server."""
        if self.drain.is_over(self._n_in_hand()):
            self.should_exit = True
        return await super().on_tick(counter)

    def _n_in_hand(self) -> int:
        """How many requests have to be finished.

        Once new requests are refused, those that have come since the last tick are not counted:
        they are answered at once, and clients may go on trying for ever.
        """
        tasks = set(self.server_state.tasks)
        known, self._known = self._known, tasks if self.drain.is_over(0) else None
        return len(tasks if known is None else tasks & known)

    def _end_in_time(self) -> None:
        """End the process, some time after it was told to, where a thread hangs."""
        self._is_told.wait()
        sleep(self.drain.timeout_s + CANCEL_S + GIVE_UP_S)
        log.error("not ended in time; something hangs")
        os._exit(1)

    async def _reload_when_told(self) -> None:
        """Reload once for all SIGHUPs that have come by then, those of the start among them."""
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                await reload(self.app.state.context, self.app.state.gate.keyring)
            except Exception:  # the next one may succeed
                log.exception("not reloaded")


def _accepted(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted."""
    listening.setblocking(False)
    while True:
        try:
            yield listening.accept()[0]
        except OSError:  # there are no more; or no more can be had
            return


def _announce(settings: Settings, gate: Gate, address: str) -> None:
    """Log the address and the settings that matter, and warn if anybody may use the service."""
    log.info(
        "starting",
        address=address,
        docs=f"{address}/docs",
        models=str(settings.models if settings.models_url is None else "VIOLA_MODELS_URL"),
        keys=len(gate.keyring.keys),
    )
    if not gate.keyring and not is_loopback(settings.host):
        log.warning(
            "no API keys: whoever reaches this address may use the service",
            host=settings.host,
            remedy="viola key NAME makes one; VIOLA_API_KEYS_FILE names the file of their hashes",
        )
