"""What Prometheus scrapes and the service counts: traffic, stages, audio, refusals.

The state at the time of a scrape is in `service/gauges.py`.

No label holds anything a client wrote, and every value that a label can have is there from the
start, at 0: a rate over a series that does not exist yet is no rate.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import get_args

from fastapi.routing import APIRoute, APIWebSocketRoute
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.routing import BaseRoute

from service.collections.job_records import ENDED
from service.formats.job_requests import Kind
from service.problem_types import PROBLEM_TYPES

STAGES = ("receive", "decode", "queue", "infer", "classify", "search", "store", "render")
RESULTS = ("decoded", "embedded")
RELOADS = ("done", "refused")
WEBSOCKET = "WEBSOCKET"  # in place of a method
OF_SOCKETS = (101, 401, 403, 429, 503)  # accepted, and the refusals of a handshake
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", WEBSOCKET)
NO_ROUTE = "none"  # what was answered before the routes, and what is at no route
HUNG_UP = 499  # in place of a status, where the client was gone before there was one

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)
_BYTES = tuple(4**k for k in range(5, 16))  # 1 KiB to 1 GiB
_WHOLE = (1, 2, 4, 8, 16, 32, 64)


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
        self.jobs_in_hand = Gauge(
            "viola_worker_jobs", "Jobs that this process works on.", registry=registry
        )
        self.job_places = Gauge(
            "viola_worker_places", "Jobs that it may work on at once.", registry=registry
        )
        self.job_wait = Histogram(
            "viola_job_wait_seconds",
            "From a job's submission until this process took it, the first that did.",
            ("kind",),
            buckets=_LONG_SECONDS,
            registry=registry,
        )
        self.job_duration = Histogram(
            "viola_job_duration_seconds",
            "From when a job was first taken to its end, by this process.",
            ("kind", "state"),
            buckets=_LONG_SECONDS,
            registry=registry,
        )
        self.jobs_again = Counter(
            "viola_jobs_begun_again_total",
            "Jobs that this process took up which another had put down, or died of.",
            ("kind",),
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
        _from_zero(self.job_wait, get_args(Kind))
        _from_zero(self.jobs_again, get_args(Kind))
        for kind, state in product(get_args(Kind), ENDED):
            self.job_duration.labels(kind, state)

    def start_at_zero(self, routes: Sequence[BaseRoute]) -> None:
        """Start the counters of every answer that the routes declare, at 0."""
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

    def observe_decoded(self, audio_s: float, refused: Iterable[str]) -> None:
        """Count what the files of one request came to: seconds, and problems by their names."""
        self.audio.labels("decoded").inc(audio_s)
        for slug in refused:
            self.refused_files.labels(slug).inc()

    def observe_embedded(self, audio_s: float, n_windows: int) -> None:
        """Count the vectors of one request."""
        self.audio.labels("embedded").inc(audio_s)
        self.windows.inc(n_windows)

    def observe_stream(self, audio_s: float) -> None:
        """Count a part of a recording that is answered as a stream."""
        for result in RESULTS:
            self.audio.labels(result).inc(audio_s)

    def observe_job_begun(self, kind: str, attempt: int, waited_s: float) -> None:
        """Count a job that this process has taken."""
        if attempt == 1:
            self.job_wait.labels(kind).observe(waited_s)
        else:
            self.jobs_again.labels(kind).inc()

    def observe_job_ended(self, kind: str, state: str, took_s: float) -> None:
        """Count a job that this process has ended."""
        self.job_duration.labels(kind, state).observe(took_s)

    def observe_batch(self, rows: int, audio_s: float, took_s: float) -> None:
        """Count one inference."""
        self.batch_rows.observe(rows)

    def page(self) -> bytes:
        """All counters in Prometheus' text format."""
        return generate_latest(self.registry)


def _from_zero(metric: Counter | Histogram, values: Iterable[str]) -> None:
    for value in values:
        metric.labels(value)
