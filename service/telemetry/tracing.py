"""Spans of requests and of their stages, for the OpenTelemetry collector that a setting names.

FastAPI makes the span of the request (and follows a caller's `traceparent`), `timing.py` those of
the stages in it. Nothing is recorded, and nothing imported, unless the setting is there.
"""

from importlib.metadata import version
from importlib.util import find_spec
from typing import cast

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import Tracer, TracerProvider

from service.settings import Settings, SettingsError

SERVICE_NAME = "viola"
EXPORT_TIMEOUT_S = 3  # also what a collector that is gone costs at the end of the process


def provider(settings: Settings) -> TracerProvider | None:
    """The provider that records spans and sends them in batches, from a thread; None without one.

    Raises:
        SettingsError: the packages for it are not installed.
    """
    if settings.otel_endpoint is None:
        return None
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        raise SettingsError("VIOLA_OTEL_ENDPOINT needs the extra: pip install '.[otel]'")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as Recording
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.name": SERVICE_NAME, "service.version": version("viola-audio")}
    recording = Recording(resource=Resource.create(about), shutdown_on_exit=False)
    address = f"{settings.otel_endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=address, timeout=EXPORT_TIMEOUT_S)
    recording.add_span_processor(BatchSpanProcessor(exporter))
    return cast(TracerProvider, recording)


def close(provider: TracerProvider | None) -> None:
    """Send what is left; takes a while where the collector does not answer."""
    if provider is not None:
        provider.shutdown()  # type: ignore[attr-defined]  # of the SDK's, which made it


def telemetry(provider: TracerProvider | None) -> TelemetryConfig:
    """FastAPI's settings: spans go to this provider; the environment turns nothing else on."""
    return {
        "tracer_provider": provider,
        "tracing": provider is not None,
        "operation_spans": False,
        "metrics": False,
        "logs": False,  # they would carry the text of exceptions
        "auto_configure": False,
    }


def tracer(provider: TracerProvider | None) -> Tracer | None:
    """The tracer that starts the spans of stages; None where none are recorded."""
    return None if provider is None else provider.get_tracer(SERVICE_NAME)
