"""The application: load and prove the models, serve, drain."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import structlog
from anyio.to_thread import run_sync
from fastapi import FastAPI
from opentelemetry.trace import Tracer
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import Scope

from models.limits import Limits
from models.machine import available_cpus
from service import errors, footprint, openapi, routes
from service.audio.decode_child import ResourceLimits
from service.audio.decoder import Decoder
from service.audio.forks import ForkServer
from service.audio.recordings import Recordings
from service.collecting import Collecting
from service.context import Context
from service.discovery import modules
from service.engine import Engine
from service.gauges import State
from service.inference.batcher import Batcher
from service.inference.fetching import models_path
from service.inference.loading import load_catalogue
from service.inference.watchdog import Watchdog
from service.jobs.settling import settled
from service.jobs.worker import Worker
from service.queueing import Queueing
from service.routes import health, metrics
from service.settings import Settings, load_settings
from service.streams.lines import may_stream
from service.teaching import Teaching
from service.telemetry import tracing
from service.telemetry.metrics import Metrics
from service.telemetry.requests import RequestContext
from service.threads import started
from service.traffic import doors
from service.traffic.admission import Admission
from service.traffic.auth import Keyring, load_keys
from service.traffic.body_limit import BodyLimit
from service.traffic.budget import Budget
from service.traffic.caller_limiter import CallerLimiter
from service.traffic.drain import Drain
from service.traffic.gate import Gate
from service.traffic.origins import Origins, is_loopback
from service.traffic.pace import AnswerPace, BodyPace
from service.traffic.quotas import Quotas
from service.traffic.redis_link import RedisLink
from service.traffic.shared_accounts import SharedAccounts
from service.traffic.usage import Usage

log = structlog.get_logger()

WORK_THREADS = 4
SPARE_DECODERS = 1  # warm, for when one dies

_DESCRIPTION = """Sound to vectors and labels: send audio files, get embeddings, or what they hold.

`curl -F file=@clip.wav 'localhost:8000/v1/audio/embeddings'`

`curl -F file=@clip.wav 'localhost:8000/v1/audio/classifications'`
"""
_TAGS = [
    {"name": "embeddings", "description": "Audio to vectors."},
    {"name": "classifications", "description": "Audio to labels."},
    {"name": "open inference", "description": "Audio to vectors, as KServe and Triton speak."},
    {"name": "collections", "description": "Vectors that are kept, searched and labelled."},
    {
        "name": "jobs",
        "description": "Work that goes on after the answer: long recordings, batches.",
    },
    {"name": "models", "description": "What computes the vectors."},
    {"name": "classifiers", "description": "What labels them."},
    {"name": "limits", "description": "What a request may hold."},
    {"name": "health", "description": "For load balancers and operators."},
    {"name": "problems", "description": "What a refusal means."},
]


def create_app(settings: Settings | None = None, *, is_worker: bool = False) -> FastAPI:
    """The service with these settings, else with those of the environment.

    `is_worker`: it only does jobs and answers health checks; processes that serve charge the keys.

    Raises:
        SettingsError: if the settings, or the API keys that they name, cannot be used.
    """
    settings = settings or load_settings()
    keyring, shared = Keyring(load_keys(settings)), _shared(settings)
    used = Usage(shared)
    used.know(key.name for key in keyring.keys)
    gate = Gate(
        keyring,
        Quotas(
            settings.audio_seconds_per_minute,
            observe=used.heard,
            shared=shared,
            when_down=settings.redis_down,
        ),
        Drain(settings.drain_delay_s, settings.shutdown_timeout_s),
        CallerLimiter(settings.max_inflight_per_key),
        Origins(settings.cors_origins, is_local=is_loopback(settings.host)),
    )
    counts, spans = Metrics(), tracing.provider(settings)
    budget = Budget(settings.memory_bytes, wait_s=settings.request_timeout_s / 2)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        doors.check(app)
        threads = ThreadPoolExecutor(n_threads(settings), thread_name_prefix="work")
        asyncio.get_running_loop().set_default_executor(started(threads, n_threads(settings)))
        try:
            context = await _context(settings, gate, counts, used, tracing.tracer(spans), budget)
        except BaseException:
            threads.shutdown()  # else there may be no room for the thread that ends the loop's own
            raise
        app.state.context = context
        gate.check_place = partial(_check_place, context.admission)
        counts.registry.register(State(context))
        tasks = [
            _in_background(context.watchdog.watch(partial(_probe, context))),
            _in_background(context.engine.decoder.tend()),
        ]
        if shared is not None:
            tasks.append(_in_background(shared.tend()))
        if context.collecting is not None:
            await context.collecting.warn_of_other_spaces(context.catalogue.spaces)
            tasks.append(_in_background(context.collecting.tend()))
        worker = None
        if context.queueing is not None:
            tasks.append(_in_background(context.queueing.tend()))
            tasks.append(_in_background(context.queueing.watch()))
            if not is_worker:
                tasks.append(_in_background(settled(context.queueing, gate)))
            if settings.job_workers:
                worker = Worker(context, context.queueing)
                tasks.append(_in_background(worker.run(settings.job_workers)))
        footprint.warn_of_memory(settings)
        yield
        if worker is not None:
            await worker.leave()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if context.teaching is not None:
            context.teaching.fits.close()
        context.engine.close()
        context.recordings.close()
        if shared is not None:
            await shared.close()
        if context.queueing is not None:
            await run_sync(context.queueing.queue.close)
        if context.collecting is not None:
            await run_sync(context.collecting.store.close)
        await run_sync(tracing.close, spans)

    app = FastAPI(
        title="Viola",
        version=version("viola-audio"),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=_TAGS,
        openapi_url=None,  # of our own, as its page: FastAPI's loads scripts from elsewhere
        redirect_slashes=False,  # it would echo the Host header
        lifespan=lifespan,
        telemetry=tracing.telemetry(spans),
    )
    app.state.gate = gate
    served = _routes(settings, is_worker)
    _wrap(app, settings, gate, counts, used, budget, _methods(served))
    errors.install(app)
    doors.install(app, served, gate)
    openapi.install(app, served)
    counts.start_at_zero(served)
    return app


def _in_background(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Start work that goes on until the service ends; if it ends before, the log says so."""

    def tell(task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            log.error("a task in the background has ended", exc_info=task.exception())

    task = asyncio.create_task(work)
    task.add_done_callback(tell)
    return task


def _shared(settings: Settings) -> SharedAccounts | None:
    """What all replicas share, where the settings name a Redis.

    Raises:
        SettingsError: the URL or the installation is not fit for it.
    """
    if settings.redis_url is None:
        return None
    url = settings.redis_url.get_secret_value()
    return SharedAccounts(RedisLink(url, settings.redis_timeout_s, settings.redis_down))


def _routes(settings: Settings, is_worker: bool) -> list[BaseRoute]:
    """The routes: the `router` of every module in `service/routes`.

    A worker has those of health checks and metrics alone.
    """
    but = () if settings.metrics else ("metrics",)
    found = modules(routes, but)
    if is_worker:
        found = [module for module in found if module in (health, metrics)]
    return [route for module in found for route in module.router.routes]


def _methods(routes: Iterable[BaseRoute]) -> set[str]:
    """All HTTP methods that the routes take."""
    return {"HEAD"}.union(*(getattr(route, "methods", None) or () for route in routes))


def _wrap(
    app: FastAPI,
    settings: Settings,
    gate: Gate,
    counts: Metrics,
    usage: Usage,
    budget: Budget,
    methods: set[str],
) -> None:
    """Add the middleware that every request passes, from the inner to the outer."""
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(
        BodyPace, bytes_per_s=settings.min_body_bytes_per_s, grace_s=settings.body_grace_s
    )
    if settings.cors_origins:  # around the routes: a browser asks first, and without the key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=sorted(methods),
            allow_headers=("*",),  # whatever its client sends: who may call is told by the key
            expose_headers=("*",),  # whatever the routes write; a page of an allowed origin
        )
    app.add_middleware(
        AnswerPace,
        budget=budget,
        bytes_per_s=settings.min_answer_bytes_per_s,
        grace_s=settings.idle_timeout_s,
    )
    app.add_middleware(RequestContext, metrics=counts, drain=gate.drain, usage=usage)


def n_threads(settings: Settings) -> int:
    """Threads for parsing, pooling and rendering: one for each stream, and some for the rest."""
    return settings.max_streams + settings.job_workers + max(WORK_THREADS, available_cpus())


def _check_place(admission: Admission, scope: Scope) -> None:
    if not may_stream(scope):
        admission.check()


async def _probe(context: Context) -> None:
    await context.engine.probe(context.catalogue.models.values())


async def _context(
    settings: Settings,
    gate: Gate,
    counts: Metrics,
    usage: Usage,
    tracer: Tracer | None,
    budget: Budget,
) -> Context:
    limits = Limits(settings.max_duration_s, settings.max_decoded_bytes)
    resources = ResourceLimits(
        settings.decode_cpu_s, settings.decode_wall_s, settings.decode_memory_bytes
    )
    decoder = Decoder(limits, settings.decode_workers, resources, spares=SPARE_DECODERS)
    inferences, threads = settings.workers_and_threads
    catalogue = await run_sync(
        load_catalogue,
        await run_sync(models_path, settings),
        settings.default_model,
        settings.default_head,
        threads,
    )
    await decoder.start()
    batcher = Batcher(inferences, settings.inference_timeout_s)
    batcher.observe = counts.observe_batch
    engine = Engine(
        decoder,
        batcher,
        max_request_duration_s=settings.request_duration_s,
        max_windows=settings.max_windows,
    )
    watchdog = Watchdog(
        engine.heartbeat, interval_s=settings.probe_interval_s, patience_s=settings.hang_timeout_s
    )
    queue = (settings.queue_s, batcher.ahead_s)
    collecting = await run_sync(Collecting.open, settings)
    queueing = await run_sync(Queueing.open, settings, collecting)
    return Context(
        settings,
        catalogue,
        engine,
        Admission(settings.max_inflight, *queue),
        gate.drain,
        gate.quotas,
        counts,
        watchdog,
        tracer,
        _recordings(decoder.forks, settings, limits, resources, budget),
        Admission(settings.max_streams, *queue),
        budget,
        Admission(settings.max_live_streams, *queue),
        Admission(settings.max_inflight),
        CallerLimiter(max(1, settings.max_inflight // 2)),  # none takes all of these places
        usage,
        collecting,
        None if collecting is None else Teaching.of(collecting.store, settings),
        queueing,
    )


def _recordings(
    forks: ForkServer,
    settings: Settings,
    limits: Limits,
    resources: ResourceLimits,
    budget: Budget,
) -> Recordings:
    """The decoder of streams: longer audio, and CPU time in proportion; no more memory."""
    longer = settings.max_stream_duration_s / settings.max_duration_s
    return Recordings(
        forks,
        replace(limits, max_duration_s=settings.max_stream_duration_s, max_decoded_bytes=None),
        replace(resources, cpu_s=resources.cpu_s * max(1.0, longer)),
        settings.max_streams + settings.job_workers,
        budget,
    )
