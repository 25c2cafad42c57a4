"""A computation that runs once at a time, and whose result is kept for a while."""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedResult(Generic[T]):
    """Keeps a result for `keep_s`; all who ask while it is computed get the same one."""

    def __init__(self, keep_s: float, clock: Callable[[], float] = monotonic) -> None:
        self.keep_s = keep_s
        self._clock = clock
        self._of: object = None
        self._computing: asyncio.Task[T] | None = None
        self._done_at = 0.0

    async def get(self, of: object, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result that is kept for the object `of`, else what `compute` returns."""
        if self._computing is None or self._is_stale(of):
            self._of, self._computing = of, asyncio.create_task(self._run(compute))
        return await asyncio.shield(self._computing)

    def _is_stale(self, of: object) -> bool:
        """Whether the result is too old; one that is still being computed never is."""
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
