"""What the handlers share, made once by the application's lifespan."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from opentelemetry.trace import Tracer

from service.audio.recordings import Recordings
from service.engine import Engine
from service.inference.catalogue import Catalogue
from service.inference.selftest import SelfTestReport
from service.inference.watchdog import Watchdog
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.traffic.admission import Admission
from service.traffic.budget import Budget
from service.traffic.drain import Drain
from service.traffic.latest import Latest
from service.traffic.quotas import Caller, Quotas
from service.traffic.usage import Usage

SELF_TEST_KEPT_S = 5.0  # whoever asks for a self-test more often gets the same report


@dataclass
class Context:
    """The service's parts; a handler takes those it needs.

    `catalogue` is replaced as a whole when models are loaded again: a handler reads it once.
    """

    settings: Settings
    catalogue: Catalogue
    engine: Engine
    admission: Admission
    drain: Drain
    quotas: Quotas
    metrics: Metrics
    watchdog: Watchdog
    tracer: Tracer
    recordings: Recordings
    streams: Admission
    budget: Budget
    live: Admission
    usage: Usage
    self_test: Latest[SelfTestReport] = field(default_factory=lambda: Latest(SELF_TEST_KEPT_S))

    def spend(self, caller: Caller, audio_s: float) -> None:
        """Charge and count a part of a stream's audio."""
        self.quotas.charge(caller, audio_s)
        self.metrics.observe_stream(audio_s)

    def complaints(self) -> list[str]:
        """Why requests should go elsewhere; nothing while all is well."""
        found = [
            "it is shutting down" if self.drain.has_begun else None,
            None if self.catalogue.is_ready else "the default model is not usable",
            "inference hangs" if self.engine.batcher.hung else None,
            None if self.engine.decoder.pids else "no decoder runs",
            self.watchdog.complaint(),
        ]
        return [reason for reason in found if reason is not None]


async def _context(request: Request) -> Context:  # else FastAPI sends it to a thread
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(_context)]
