"""One computation at a time, whose result all who ask for it share."""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Keeps a result for `keep_s`; whoever asks while it is computed waits for the same one."""

    def __init__(self, keep_s: float, clock: Callable[[], float] = monotonic) -> None:
        self.keep_s = keep_s
        self._clock = clock
        self._of: object = None
        self._computing: asyncio.Task[T] | None = None
        self._done_at = 0.0

    async def get(self, of: object, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result that there is of the object `of`, else what `compute` returns."""
        if self._computing is None or self._is_stale(of):
            self._of, self._computing = of, asyncio.create_task(self._run(compute))
        return await asyncio.shield(self._computing)

    def _is_stale(self, of: object) -> bool:
        """Nothing is stale that is still computed, so that never two are."""
        assert self._computing is not None
        if not self._computing.done():
            return False
        if self._computing.cancelled() or self._computing.exception() is not None:
            return True
        return of is not self._of or self._clock() >= self._done_at + self.keep_s

    async def _run(self, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await compute()
        finally:
            self._done_at = self._clock()
