"""What the handlers share, made once by the application's lifespan."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request
from opentelemetry.trace import Tracer
from pydantic import AfterValidator

from models.runtime import Encoder
from models.sources import normal
from service.audio.recordings import Recordings
from service.collecting import Collecting
from service.collections.records import Collection
from service.engine import Engine
from service.inference.catalogue import Catalogue, Served
from service.inference.watchdog import Watchdog
from service.naming import KEY, MAX_ID, MAX_NAME, NAME
from service.parameters import PLAIN
from service.problems import Problem
from service.queueing import Queueing
from service.reports import SelfTestReport
from service.settings import Settings
from service.teaching import Teaching
from service.telemetry.metrics import Metrics
from service.traffic.admission import Admission
from service.traffic.budget import Budget
from service.traffic.caller_limiter import CallerLimiter
from service.traffic.drain import Drain
from service.traffic.quotas import Caller, Quotas
from service.traffic.shared_result import SharedResult
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
    tracer: Tracer | None
    recordings: Recordings
    streams: Admission
    budget: Budget
    live: Admission
    receiving: Admission
    receivers: CallerLimiter
    usage: Usage
    collecting: Collecting | None = None
    teaching: Teaching | None = None
    queueing: Queueing | None = None
    self_test: SharedResult[SelfTestReport] = field(
        default_factory=lambda: SharedResult(SELF_TEST_KEPT_S)
    )

    def spend(self, caller: Caller, audio_s: float) -> None:
        """Charge and count a part of a stream's audio."""
        self.quotas.charge(caller, audio_s)
        self.metrics.observe_stream(audio_s)

    async def catalogue_of(self, caller: Caller, heads: Sequence[str]) -> Catalogue:
        """What this caller is served: the rest, and those of the own classifiers that are named."""
        if self.teaching is None:
            return self.catalogue
        return await self.teaching.beside(self.catalogue, caller, heads)

    def complaints(self) -> list[str]:
        """Why readiness is red, in words that may be published; empty while all is well."""
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


async def _collected(shared: Shared) -> Collecting:
    if shared.collecting is None:
        raise Problem("collections-off", "This service keeps no collections.")
    return shared.collecting


Collected = Annotated[Collecting, Depends(_collected)]


async def _teaches(shared: Shared) -> Teaching:
    if shared.teaching is None:
        raise Problem("collections-off", "This service keeps no collections, so none can teach.")
    return shared.teaching


Teaches = Annotated[Teaching, Depends(_teaches)]


async def _queued(shared: Shared) -> Queueing:
    if shared.queueing is None:
        raise Problem("collections-off", "This service keeps nothing, and so no jobs.")
    return shared.queueing


Queued = Annotated[Queueing, Depends(_queued)]
KeyInPath = Annotated[str, Path(pattern=KEY)]
NameInPath = Annotated[str, Path(pattern=NAME, max_length=MAX_NAME)]
IdInPath = Annotated[str, Path(max_length=MAX_ID), AfterValidator(normal)]
NumberInPath = Annotated[int, Path(ge=1, le=2**62), PLAIN]


def model_of(shared: Context, collection: Collection) -> Served[Encoder]:
    """The model of a collection's space.

    Raises:
        Problem: none is served.
    """
    terms = collection.terms
    served = shared.catalogue.models.values()
    fitting = [model for model in served if model.space_id == terms.space_id]
    if not fitting:
        raise Problem(
            "collection-space",
            f"The {collection.of_space}, which is not served here. Serve the file of that model "
            f"again, or {collection.way_to_another_space}.",
        )
    return min(fitting, key=lambda model: model.name != terms.model)
