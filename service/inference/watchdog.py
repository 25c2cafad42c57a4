"""Tells whether decoding and inference still work: by real requests, or by a probe when idle.

A session or a driver can hang while the process itself still answers. `Heartbeat` notes when work
was asked for and when any was last finished. While nothing is asked for, the watchdog decodes a
file and has the golden vectors computed, through the same queues.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import structlog

from service.exceptions import ServiceError

log = structlog.get_logger()


class Heartbeat:
    """Measures for how long work has been waited for without any being finished."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._waiting = 0
        self._beat_at = 0.0  # when work was last finished, or first waited for

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Use around the wait for a piece of work; its end, good or bad, is a heartbeat."""
        if not self._waiting:
            self._beat_at = self._clock()
        self._waiting += 1
        try:
            yield
        except Exception:
            self._beat_at = self._clock()
            raise
        else:
            self._beat_at = self._clock()
        finally:  # also after a cancelled wait, which is no heartbeat
            self._waiting -= 1

    @property
    def is_idle(self) -> bool:
        """Whether no work is waited for."""
        return self._waiting == 0

    @property
    def silence_s(self) -> float:
        """Seconds for which work has been waited for since any was finished; 0 when idle."""
        return self._clock() - self._beat_at if self._waiting else 0.0


class Watchdog:
    """Probes an idle service every `interval_s`; reports one that is silent for `patience_s`."""

    def __init__(self, heartbeat: Heartbeat, *, interval_s: float, patience_s: float) -> None:
        self.heartbeat = heartbeat
        self.interval_s, self.patience_s = interval_s, patience_s
        self._failure: str | None = None

    async def watch(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Run `probe` whenever the service is idle; a task that runs until it is cancelled."""
        while True:
            await asyncio.sleep(self.interval_s)
            if self.heartbeat.is_idle:
                await self._look(probe)

    def complaint(self) -> str | None:
        """What is wrong, in words that may be published."""
        if (silence_s := self.heartbeat.silence_s) > self.patience_s:
            return f"inference has not answered for {silence_s:.0f} s"
        return self._failure

    async def _look(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Probe once; it fails if it takes longer than `patience_s`."""
        probing = asyncio.ensure_future(probe())
        try:
            await asyncio.wait([probing], timeout=self.patience_s)
            if probing.done():
                self._judge(probing.exception())
            else:
                what = "decoding" if self.heartbeat.is_idle else "inference"
                self._failure = f"{what} has not answered for {self.patience_s:g} s"
                log.error("probe failed", reason=self._failure)
        finally:
            probing.cancel()
            await asyncio.wait([probing])

    def _judge(self, error: BaseException | None) -> None:
        """Remember how a probe has ended."""
        if error is None:
            if self._failure is not None:
                log.info("probe works again")
            self._failure = None
            return
        if self._failure is None:
            expected = isinstance(error, ServiceError)  # its message says it all
            log.error("probe failed", reason=str(error), exc_info=None if expected else error)
        self._failure = "the probe failed; the log says why"
