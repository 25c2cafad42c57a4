"""What Prometheus scrapes: traffic, stages, audio, refusals, and what is served.

No label holds anything a client wrote, and every value that a label can have is there from the
start, at 0: a rate over a series that does not exist yet is no rate.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, get_args

from fastapi.routing import APIRoute, APIWebSocketRoute
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute

from service.audio.decode_process import Cause
from service.engine import Clip, Embedded
from service.problems import PROBLEM_TYPES, Problem

if TYPE_CHECKING:
    from service.context import Context
    from service.traffic.usage import Usage

STAGES = ("receive", "decode", "queue", "infer", "classify", "render")
RESULTS = ("decoded", "embedded")
RELOADS = ("done", "refused")
WEBSOCKET = "WEBSOCKET"  # in place of a method
OF_SOCKETS = (101, 401, 403, 429, 503)  # accepted, and the refusals of a handshake
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", WEBSOCKET)
NO_ROUTE = "none"  # what was answered before the routes, and what is at no route
HUNG_UP = 499  # in place of a status, where the client was gone before there was one

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES = tuple(4**k for k in range(5, 16))  # 1 KiB to 1 GiB
_WHOLE = (1, 2, 4, 8, 16, 32, 64)

Family = CounterMetricFamily | GaugeMetricFamily


class Metrics:
    """The counters of one application, each under the name it has on the page."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of birth for each
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "viola_http_requests_total",
            "Requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "viola_http_request_duration_seconds",
            "From the request's head to the answer's last byte.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.body = Histogram(
            "viola_request_body_bytes",
            "Bytes of the bodies received.",
            buckets=_BYTES,
            registry=registry,
        )
        self.stage_duration = Histogram(
            "viola_stage_duration_seconds",
            "Where the time of requests with audio goes.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.audio = Counter(
            "viola_audio_seconds_total",
            "Audio of uploads: decoded, and then embedded.",
            ("result",),
            registry=registry,
        )
        self.windows = Counter(
            "viola_windows_total", "Vectors of windows computed.", registry=registry
        )
        self.files = Histogram(
            "viola_request_files", "Files in one request.", buckets=_WHOLE, registry=registry
        )
        self.batch_rows = Histogram(
            "viola_batch_rows",
            "Clips and tiles that share one inference.",
            buckets=_WHOLE,
            registry=registry,
        )
        self.rejected = Counter(
            "viola_rejected_total",
            "Requests that failed as a whole, by problem.",
            ("reason",),
            registry=registry,
        )
        self.refused_files = Counter(
            "viola_refused_files_total",
            "Files that could not be used, by problem.",
            ("reason",),
            registry=registry,
        )
        self.reloads = Counter(
            "viola_reloads_total",
            "Reloads of models and keys, by outcome.",
            ("outcome",),
            registry=registry,
        )
        _from_zero(self.stage_duration, STAGES)
        _from_zero(self.audio, RESULTS)
        _from_zero(self.rejected, PROBLEM_TYPES)
        _from_zero(self.refused_files, PROBLEM_TYPES)
        _from_zero(self.reloads, RELOADS)

    def know(self, routes: Sequence[BaseRoute]) -> None:
        """Start the counts of every answer that the routes say they can give."""
        for route in routes:
            if isinstance(route, APIRoute):
                statuses = {200, *route.responses}
                for method in route.methods or ():
                    self._know(route.path, method, statuses)
            elif isinstance(route, APIWebSocketRoute):
                self._know(route.path, WEBSOCKET, OF_SOCKETS)

    def _know(self, path: str, method: str, statuses: Iterable[int | str]) -> None:
        self.request_duration.labels(path)
        for status in statuses:
            self.requests.labels(path, method, str(status))

    def watch(self, context: "Context") -> None:
        """Also show the state that the application's parts are in at the time of a scrape."""
        self.registry.register(_State(context))

    def observe_request(
        self, route: str | None, method: str, status: int | None, seconds: float, n_bytes: int
    ) -> None:
        """Count one request that is over."""
        route = route or NO_ROUTE
        method = method if method in METHODS else "other"
        self.requests.labels(route, method, str(status or HUNG_UP)).inc()
        self.request_duration.labels(route).observe(seconds)
        if n_bytes:
            self.body.observe(n_bytes)

    def observe_stages(self, seconds: Mapping[str, float]) -> None:
        """Count where one request's time went."""
        for stage, duration in seconds.items():
            self.stage_duration.labels(stage).observe(duration)

    def observe_decoded(self, prepared: Sequence[Clip | Problem]) -> float:
        """Count what the files of one request came to; returns the seconds of audio in them."""
        clips = [item for item in prepared if isinstance(item, Clip)]
        audio_s = sum(clip.duration_s for clip in clips)
        self.audio.labels("decoded").inc(audio_s)
        for item in prepared:
            if isinstance(item, Problem):
                self.refused_files.labels(item.kind.slug).inc()
        return audio_s

    def observe_embedded(self, outcomes: Sequence[Embedded | Problem]) -> None:
        """Count the vectors of one request."""
        for item in outcomes:
            if isinstance(item, Embedded):
                self.audio.labels("embedded").inc(item.duration_s)
                self.windows.inc(len(item.windows.start_s) if item.windows else 0)

    def observe_stream(self, audio_s: float) -> None:
        """Count a part of a recording whose answers leave while it is decoded."""
        for result in RESULTS:
            self.audio.labels(result).inc(audio_s)

    def observe_batch(self, rows: int, audio_s: float, took_s: float) -> None:
        """Count one inference."""
        self.batch_rows.observe(rows)

    def page(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _State(Collector):
    """What is read off the application when it is asked for, rather than counted."""

    def __init__(self, context: "Context") -> None:
        self.context = context

    def collect(self) -> Iterator[Family]:
        context = self.context
        decoder = context.engine.decoder
        yield _gauge("viola_ready", "Whether readiness is green.", not context.complaints())
        yield _gauge("viola_draining", "Whether it is shutting down.", context.drain.has_begun)
        yield _gauge(
            "viola_inflight_requests", "Requests with audio in hand.", context.admission.inflight
        )
        yield _gauge(
            "viola_inflight_limit", "How many there may be.", context.admission.max_inflight
        )
        yield from _used(context.usage)
        batcher = context.engine.batcher
        yield _gauge("viola_queue_audio_seconds", "Audio that waits.", batcher.queued_s)
        yield _gauge("viola_memory_bytes", "What requests hold in memory.", context.budget.used)
        yield _gauge("viola_memory_limit_bytes", "What they may hold.", context.budget.total)
        yield _gauge("viola_streams", "Answers in lines in hand.", context.streams.inflight)
        yield _gauge("viola_live_streams", "Live streams with audio.", context.live.inflight)
        yield _gauge("viola_hung_inferences", "Inferences given up.", batcher.hung)
        yield _gauge("viola_decode_workers", "Processes that decode.", len(decoder.pids))
        restarts = CounterMetricFamily(
            "viola_decode_worker_restarts_total",
            "Processes that decode and were replaced, by cause.",
            labels=("cause",),
        )
        for cause in get_args(Cause):
            restarts.add_metric((cause,), decoder.restarts[cause])
        yield restarts
        yield _info(
            "viola_model_info",
            "A model that is served.",
            [
                {
                    "model": model.name,
                    "space_id": model.space_id,
                    "embed_dim": str(model.encoder.card.embed_dim),
                }
                for model in context.catalogue.served.values()
            ],
        )
        yield _info(
            "viola_classifier_info",
            "A classifier that is served.",
            [
                {"head": head.name, "space_id": head.space_id}
                for head in context.catalogue.heads.values()
            ],
        )
        yield _info("viola_build_info", "What is running.", [_build()])


def _used(usage: "Usage") -> Iterator[Family]:
    """By the names that the operator gave the keys; of an open service the name is empty."""
    requests = CounterMetricFamily(
        "viola_key_requests_total", "Requests and live streams, by key.", labels=("key",)
    )
    audio = CounterMetricFamily(
        "viola_key_audio_seconds_total", "Audio decoded, by key.", labels=("key",)
    )
    for key, used in usage.by_key.items():
        requests.add_metric((key or "",), used.requests)
        audio.add_metric((key or "",), used.audio_s)
    yield requests
    yield audio


def _from_zero(metric: Counter | Histogram, values: Iterable[str]) -> None:
    for value in values:
        metric.labels(value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _info(name: str, text: str, rows: Sequence[Mapping[str, str]]) -> GaugeMetricFamily:
    """Facts as labels of a 1, which is how Prometheus joins them to numbers."""
    family = GaugeMetricFamily(name, text, labels=tuple(rows[0]) if rows else ())
    for row in rows:
        family.add_metric(tuple(row.values()), 1)
    return family


def _build() -> dict[str, str]:
    return {
        "version": version("viola-audio"),
        "onnxruntime": version("onnxruntime"),
        "python": platform.python_version(),
    }
