"""Whether decoding and inference still answer: real work tells while there is some, else a probe.

A session can hang, a driver can wedge, and every check of the process would still be green. So
`Pulse` notes when work was asked for and when any was last done, and while nothing is asked for
the watchdog itself decodes a file and has the golden vectors computed, through the same queues.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import structlog

log = structlog.get_logger()


class Pulse:
    """Tells work that takes its turn from work that will never be done."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._waiting = 0
        self._moved_at = 0.0

    @contextmanager
    def beat(self) -> Iterator[None]:
        """Hold this while waiting for a piece of work; its end, good or bad, is a sign of life."""
        if not self._waiting:
            self._moved_at = self._clock()
        self._waiting += 1
        try:
            yield
        except Exception:
            self._moved_at = self._clock()
            raise
        else:
            self._moved_at = self._clock()
        finally:  # also where nobody waits any more, which is no sign of anything
            self._waiting -= 1

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waited for."""
        return self._waiting == 0

    @property
    def silence_s(self) -> float:
        """How long something has been waited for while nothing was done."""
        return self._clock() - self._moved_at if self._waiting else 0.0


class Watchdog:
    """Probes what is idle every `interval_s`; complains of what is silent for `patience_s`."""

    def __init__(self, pulse: Pulse, *, interval_s: float, patience_s: float) -> None:
        self.pulse = pulse
        self.interval_s, self.patience_s = interval_s, patience_s
        self._failure: str | None = None

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Ask `probe` for ever; meant to be a task that is cancelled."""
        while True:
            await asyncio.sleep(self.interval_s)
            if self.pulse.is_idle:
                await self._look(probe)

    def complaint(self) -> str | None:
        """What is wrong, in words that may be published."""
        if (silence_s := self.pulse.silence_s) > self.patience_s:
            return f"inference has not answered for {silence_s:.0f} s"
        return self._failure

    async def _look(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Probe once; what takes longer than the patience has failed."""
        probing = asyncio.ensure_future(probe())
        try:
            await asyncio.wait([probing], timeout=self.patience_s)
            if probing.done():
                self._judge(probing.exception())
            else:
                what = "decoding" if self.pulse.is_idle else "inference"
                self._failure = f"{what} has not answered for {self.patience_s:g} s"
                log.error("probe failed", reason=self._failure)
        finally:
            probing.cancel()
            await asyncio.wait([probing])

    def _judge(self, error: BaseException | None) -> None:
        """Take note of how a probe has ended."""
        if error is None:
            if self._failure is not None:
                log.info("probe works again")
            self._failure = None
            return
        if self._failure is None:
            log.error("probe failed", exc_info=error)
        self._failure = "the probe failed; the log says why"
