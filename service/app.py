"""The application: load and prove the models, serve, drain."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from anyio.to_thread import run_sync
from fastapi import FastAPI
from opentelemetry.trace import Tracer
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from models.audio import Limits
from models.runtime import available_cpus
from service import errors, openapi
from service.audio.decode_child import Guard
from service.audio.decoder import Decoder
from service.audio.recordings import Recordings
from service.context import Context
from service.engine import Engine
from service.inference.batcher import Batcher
from service.inference.loading import load_catalogue
from service.inference.probe import probe
from service.inference.watchdog import Watchdog
from service.routes import (
    analyses,
    classifications,
    classifiers,
    docs,
    embeddings,
    health,
    inspections,
    limits,
    live,
    metrics,
    models,
    open_inference,
    openai,
    problems,
    selftest,
    usage,
)
from service.settings import Settings, load_settings
from service.telemetry import tracing
from service.telemetry.metrics import Metrics
from service.threads import started
from service.traffic import doors
from service.traffic.admission import Admission
from service.traffic.auth import Keyring, load_keys
from service.traffic.budget import Budget
from service.traffic.drain import Drain
from service.traffic.gate import Gate, Guards
from service.traffic.middleware import BodyLimit, RequestContext
from service.traffic.origins import Origins
from service.traffic.pace import AnswerPace, BodyPace
from service.traffic.quotas import Quotas
from service.traffic.shares import Shares
from service.traffic.usage import Usage

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
    {"name": "models", "description": "What computes the vectors."},
    {"name": "classifiers", "description": "What labels them."},
    {"name": "limits", "description": "What a request may hold."},
    {"name": "health", "description": "For load balancers and operators."},
    {"name": "problems", "description": "What a refusal means."},
]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service with these settings, else with those of the environment.

    Raises:
        SettingsError: if the settings, or the API keys that they name, cannot be used.
    """
    settings = settings or load_settings()
    keyring, used = Keyring(load_keys(settings)), Usage()
    used.know(key.name for key in keyring.keys)
    guards = Guards(
        keyring,
        Quotas(settings.audio_seconds_per_minute, observe=used.heard),
        Drain(settings.drain_delay_s, settings.shutdown_timeout_s),
        Shares(settings.max_inflight_per_key),
        Origins(settings.cors_origins),
    )
    counts, spans = Metrics(), tracing.provider(settings)
    budget = Budget(settings.memory_bytes, wait_s=settings.request_timeout_s / 2)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        doors.check(app)
        threads = ThreadPoolExecutor(n_threads(settings), thread_name_prefix="work")
        asyncio.get_running_loop().set_default_executor(started(threads, n_threads(settings)))
        context = await _context(settings, guards, counts, used, tracing.tracer(spans), budget)
        app.state.context = context
        counts.watch(context)
        tasks = [
            asyncio.create_task(context.watchdog.watch(partial(probe, context))),
            asyncio.create_task(context.engine.decoder.tend()),
        ]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        context.engine.close()
        context.recordings.close()
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
    app.state.guards = guards
    routes = _routes(settings)
    _wrap(app, settings, guards, counts, used, budget, _methods(routes))
    errors.install(app)
    doors.install(app, routes, Gate(guards))
    openapi.install(app, routes)
    counts.know(routes)
    return app


def _routes(settings: Settings) -> list[BaseRoute]:
    """All that can be asked for."""
    audio = (embeddings, openai, classifications, analyses, live, inspections, open_inference)
    scraped = (metrics,) if settings.metrics else ()
    about = (models, classifiers, limits, usage, health, selftest, problems, *scraped, docs)
    return [route for module in (*audio, *about) for route in module.router.routes]


def _methods(routes: Iterable[BaseRoute]) -> set[str]:
    """What the routes take between them."""
    return {"HEAD"}.union(*(getattr(route, "methods", None) or () for route in routes))


def _wrap(
    app: FastAPI,
    settings: Settings,
    guards: Guards,
    counts: Metrics,
    usage: Usage,
    budget: Budget,
    methods: set[str],
) -> None:
    """Put around the routes what every request passes, from the inner to the outer."""
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
    app.add_middleware(RequestContext, metrics=counts, drain=guards.drain, usage=usage)


def n_threads(settings: Settings) -> int:
    """What parses, renders, pools and spools: one for each stream, and some for the others."""
    return settings.max_streams + max(WORK_THREADS, available_cpus())


async def _context(
    settings: Settings,
    guards: Guards,
    counts: Metrics,
    usage: Usage,
    tracer: Tracer,
    budget: Budget,
) -> Context:
    limits = Limits(settings.max_duration_s, settings.max_decoded_bytes)
    guard = Guard(settings.decode_cpu_s, settings.decode_wall_s, settings.decode_memory_bytes)
    decoder = Decoder(limits, settings.decode_workers, guard, spares=SPARE_DECODERS)
    inferences, threads = settings.lanes
    catalogue = await run_sync(
        load_catalogue,
        settings.models,
        settings.default_model,
        settings.default_head,
        threads,
    )
    batcher = Batcher(inferences, settings.inference_timeout_s)
    batcher.observe = counts.observe_batch
    engine = Engine(
        decoder,
        batcher,
        max_request_duration_s=settings.request_duration_s,
        max_windows=settings.max_windows,
    )
    watchdog = Watchdog(
        engine.pulse, interval_s=settings.probe_interval_s, patience_s=settings.hang_timeout_s
    )
    queue = (settings.queue_s, batcher.ahead_s)
    return Context(
        settings,
        catalogue,
        engine,
        Admission(settings.max_inflight, *queue),
        guards.drain,
        guards.quotas,
        counts,
        watchdog,
        tracer,
        _recordings(settings, limits, guard, budget),
        Admission(settings.max_streams, *queue),
        budget,
        Admission(settings.max_live_streams, *queue),
        usage,
    )


def _recordings(settings: Settings, limits: Limits, guard: Guard, budget: Budget) -> Recordings:
    """More audio than a clip may have, and CPU time in proportion; memory does not grow with it."""
    longer = settings.max_stream_duration_s / settings.max_duration_s
    return Recordings(
        replace(limits, max_duration_s=settings.max_stream_duration_s, max_decoded_bytes=None),
        replace(guard, cpu_s=guard.cpu_s * max(1.0, longer)),
        settings.max_streams,
        budget,
    )
