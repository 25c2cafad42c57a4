"""The application: load and prove the models, serve, drain."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio.to_thread import run_sync
from fastapi import FastAPI

from models.audio import Limits
from service import errors, openapi
from service.admission import Admission
from service.context import Context
from service.decode_child import Guard
from service.decoder import Decoder
from service.engine import Engine
from service.loading import load_catalogue
from service.middleware import BodyLimit, RequestContext
from service.routes import (
    analyses,
    classifications,
    classifiers,
    docs,
    embeddings,
    health,
    limits,
    models,
    problems,
)
from service.settings import Settings, load_settings

_DESCRIPTION = """Sound to vectors and labels: send audio files, get embeddings, or what they hold.

`curl -F file=@clip.wav 'localhost:8000/v1/audio/embeddings'`

`curl -F file=@clip.wav 'localhost:8000/v1/audio/classifications'`
"""
_TAGS = [
    {"name": "embeddings", "description": "Audio to vectors."},
    {"name": "classifications", "description": "Audio to labels."},
    {"name": "models", "description": "What computes the vectors."},
    {"name": "classifiers", "description": "What labels them."},
    {"name": "limits", "description": "What a request may hold."},
    {"name": "health", "description": "For load balancers and operators."},
    {"name": "problems", "description": "What a refusal means."},
]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service with these settings, else with those of the environment.

    Raises:
        SettingsError: if the environment's settings cannot be used.
    """
    settings = settings or load_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.context = await _context(settings)
        yield
        app.state.context.engine.close()

    app = FastAPI(
        title="Viola",
        version=version("viola-audio"),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=_TAGS,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call it
        redirect_slashes=False,  # it would echo the Host header
        lifespan=lifespan,
    )
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestContext)  # added last, so it is the outer one
    errors.install(app)
    audio = (embeddings, classifications, analyses)
    for route in (*audio, models, classifiers, limits, health, problems):
        app.include_router(route.router)
    docs.install(app)
    openapi.install(app)
    return app


async def _context(settings: Settings) -> Context:
    decoder = Decoder(
        Limits(
            max_duration_s=settings.max_duration_s, max_decoded_bytes=settings.max_decoded_bytes
        ),
        settings.decode_workers,
        Guard(settings.decode_cpu_s, settings.decode_wall_s, settings.decode_memory_bytes),
    )
    catalogue = await run_sync(
        load_catalogue,
        settings.models,
        settings.default_model,
        settings.default_head,
        settings.threads,
    )
    engine = Engine(
        decoder,
        max_request_duration_s=settings.request_duration_s,
        max_windows=settings.max_windows,
    )
    return Context(settings, catalogue, engine, Admission(settings.max_inflight))
