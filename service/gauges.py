"""What `/metrics` says of the application's state: read off its parts at the time of a scrape."""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service.audio.decode_process import Cause
from service.collections.jobs import UNENDED
from service.context import Context
from service.formats.job_requests import Kind
from service.queueing import Queueing, Seen
from service.traffic.shared_accounts import SharedAccounts
from service.traffic.usage import Usage

Family = CounterMetricFamily | GaugeMetricFamily


class State(Collector):
    """Reads the application's state when Prometheus asks for it."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def collect(self) -> Iterator[Family]:
        """Every gauge, as it is now."""
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
        yield from _redis(context.quotas.shared)
        yield from _jobs(context.queueing)
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
        for kind, items in context.catalogue.by_kind.items():
            rows = [kind.labels(item.network) for item in items.values()]
            yield _info(f"viola_{kind.name}_info", f"A {kind.name} that is served.", rows)
        yield _info("viola_build_info", "What is running.", [_build()])


def _redis(shared: SharedAccounts | None) -> Iterator[Family]:
    """Metrics of the shared Redis; without values where replicas share none."""
    up = GaugeMetricFamily("viola_redis_up", "Whether the shared quotas can be reached.", labels=())
    failures = CounterMetricFamily(
        "viola_redis_failures_total", "Calls of Redis that failed.", labels=()
    )
    if shared is not None:
        up.add_metric((), float(shared.link.is_up))
        failures.add_metric((), shared.link.failures)
    yield up
    yield failures


def _jobs(queueing: Queueing | None) -> Iterator[Family]:
    """Metrics of all jobs in the store, whoever does them; without values while it is down."""
    seen = Seen(backlog=[]) if queueing is None else queueing.seen
    up = GaugeMetricFamily(
        "viola_jobs_store_up", "Whether the store of jobs can be read.", labels=()
    )
    number = GaugeMetricFamily(
        "viola_jobs", "Jobs that have not ended, in the whole store.", labels=("kind", "state")
    )
    age = GaugeMetricFamily(
        "viola_jobs_oldest_seconds",
        "Since the oldest of them was submitted; 0 where there is none.",
        labels=("kind", "state"),
    )
    silent = GaugeMetricFamily(
        "viola_jobs_silent",
        "Jobs in hand whose worker has not been heard of for too long.",
        labels=(),
    )
    if queueing is not None:
        up.add_metric((), float(seen.backlog is not None))
    if seen.backlog is not None:
        found = {(one.kind, one.state): one for one in seen.backlog}
        now = time.time()
        for labels in product(get_args(Kind), UNENDED):
            one = found.get(labels)
            number.add_metric(labels, 0 if one is None else one.n_jobs)
            age.add_metric(labels, 0 if one is None else max(0.0, now - one.oldest_at))
        silent.add_metric((), seen.n_silent)
    yield from (up, number, age, silent)


def _used(usage: Usage) -> Iterator[Family]:
    """Requests and audio by the name of the key; without keys the name is empty."""
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


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _info(name: str, text: str, rows: Sequence[Mapping[str, str]]) -> GaugeMetricFamily:
    """A metric that is always 1, with facts as labels, as Prometheus joins them to numbers."""
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
