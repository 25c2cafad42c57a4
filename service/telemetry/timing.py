"""Where a request's time went: the `Server-Timing` header, and a span a stage where traces go."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter

from opentelemetry.trace import Tracer


class Timing:
    """Seconds by stage, in the order in which the stages began."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._tracer = tracer

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside towards `name`."""
        started = perf_counter()
        try:
            with self._span(name):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - started

    def _span(self, name: str) -> AbstractContextManager[object]:
        if self._tracer is None:
            return nullcontext()
        # Exceptions stay out of spans: their text may hold what a client sent
        return self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        )

    def header(self) -> str:
        """The value of the `Server-Timing` header, in milliseconds."""
        return ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in self.seconds.items())
