"""The process around the application: uvicorn, with our logs and a bounded shutdown."""

import structlog
import uvicorn

from service import logs
from service.app import create_app
from service.settings import Settings

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests in hand then have `shutdown_timeout_s` to finish."""
    logs.configure(settings.log_level)
    address = f"http://{settings.host}:{settings.port}"
    log.info("starting", address=address, docs=f"{address}/docs", models=str(settings.models))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn's messages take the way of ours
        access_log=False,  # the request's own line says more
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
