"""One budget of bytes for all that requests keep in memory: uploads, decoding, samples, answers.

A request has a share of it, from its first byte in to its last byte out. What does not fit waits
for others to end, and is refused when that takes too long; what can never fit is refused at once.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Self

from service.exceptions import ServiceError

RETRY_AFTER_S = 2
WAIT_S = 25.0  # for others to end; bounded, since who waits holds bytes that others wait for
UPLOADS = 3 / 8  # of the budget at the most, so that what has been received can also be answered
RESERVED = 1 / 8  # of the budget, for requests that hold little
LITTLE = 1 / 64  # of the budget: an upload that does not wait for long recordings to end
LEFT = 1 - RESERVED - UPLOADS  # of the budget, for what becomes of large uploads


class Budget:
    """The bytes that all requests may hold; used on one event loop.

    Attributes:
        total: how many bytes all requests may hold together.
        wait_s: how long one waits for room.
        used: how many they hold.
    """

    def __init__(self, total: int, wait_s: float = WAIT_S) -> None:
        self.total, self.wait_s = total, wait_s
        self.used = 0
        self._lock = Lock()  # decoded samples are taken in threads
        self._small: deque[_Waiter] = deque()  # go first: they have room of their own
        self._growing: deque[_Waiter] = deque()  # hold bytes already, and go next
        self._uploads: deque[_Waiter] = deque()

    def share(self) -> "Share":
        """A share that holds nothing yet; close it when the request has ended."""
        return Share(self)

    def _most(self, *, is_upload: bool, is_small: bool) -> int:
        """How many bytes all requests may use together once one of this kind has its own."""
        part = (UPLOADS if is_upload else 1 - RESERVED) + (RESERVED if is_small else 0)
        return int(part * self.total)

    def _try(self, share: "Share", n_bytes: int, most: int) -> bool:
        """Take bytes for a request, unless more than `most` would be used and others hold some."""
        with self._lock:
            is_alone = self.used == share.held and self.used + n_bytes <= self.total
            fits = self.used + n_bytes <= most or is_alone
            self.used += n_bytes if fits else 0
        return fits

    def _give(self, n_bytes: int) -> None:
        with self._lock:
            self.used -= n_bytes
        self._wake()

    def _wake(self) -> None:
        """Serve those that wait, in the order in which they came.

        A small request, or one that holds bytes already, is served as soon as it fits: it will end
        and give its bytes back. Large uploads come last, in strict order, so that none is overtaken
        for ever.
        """
        for queue in (self._small, self._growing):
            for waiter in list(queue):
                if self._serve(waiter):
                    queue.remove(waiter)
        while not self._growing and self._uploads and self._serve(self._uploads[0]):
            self._uploads.popleft()

    def _serve(self, waiter: "_Waiter") -> bool:
        """Give a waiter its bytes if there is room; True if it waits no longer."""
        if not waiter.ready.done() and self._try(waiter.share, waiter.n_bytes, waiter.most):
            waiter.ready.set_result(None)
        return waiter.ready.done()

    async def _wait(self, share: "Share", n_bytes: int, most: int, queue: "deque[_Waiter]") -> bool:
        """Wait for room and take it; False if there was none in time."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(_Waiter(share, n_bytes, most, ready))
        try:
            await asyncio.wait([ready], timeout=self.wait_s)
        except asyncio.CancelledError:
            if ready.done():
                self._give(n_bytes)
            raise
        finally:
            has_room = ready.done()
            ready.cancel()
            self._wake()  # whoever came later may need less
        return has_room


@dataclass(frozen=True, eq=False)
class _Waiter:
    """A request that waits for `n_bytes`, until at most `most` are used in all."""

    share: "Share"
    n_bytes: int
    most: int
    ready: "asyncio.Future[None]"


class Share:
    """The bytes of one request. What it takes it holds until it gives it back or is closed."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.held = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Give all of it back."""
        self.give(self.held)

    async def take(self, n_bytes: int, *, is_upload: bool = False) -> None:
        """Hold so many bytes more, as soon as others have given back enough.

        Uploads leave a part of the budget to the work on what was uploaded, and wait behind that
        work. All leave a part to requests that hold little, which need not wait for the others.

        Raises:
            ServiceError: there is never or not soon enough room for them.
        """
        self.check(n_bytes)
        budget = self.budget
        is_small = self._is_small(n_bytes, LITTLE if is_upload else RESERVED)
        most = budget._most(is_upload=is_upload, is_small=is_small)
        queue = budget._uploads if is_upload else budget._growing
        may_try = is_small or not (is_upload and (budget._growing or budget._uploads))
        if not (may_try and budget._try(self, n_bytes, most)) and not await budget._wait(
            self, n_bytes, most, budget._small if is_small else queue
        ):
            raise self._full(n_bytes)
        self.held += n_bytes

    def take_now(self, n_bytes: int) -> None:
        """Hold so many bytes more; may be called in a thread, while the request waits for it.

        Raises:
            ServiceError: there is no room for them.
        """
        if not self.try_now(n_bytes):
            raise self._full(n_bytes)

    def try_now(self, n_bytes: int) -> bool:
        """Like `take_now`, but returns False where there is no room now.

        Raises:
            ServiceError: there is never room for them.
        """
        self.check(n_bytes)
        is_small = self._is_small(n_bytes, RESERVED)
        most = self.budget._most(is_upload=False, is_small=is_small)
        fits = self.budget._try(self, n_bytes, most)
        self.held += n_bytes if fits else 0
        return fits

    def give(self, n_bytes: int) -> None:
        """Hold so many bytes less; on the event loop."""
        self.held -= n_bytes
        self.budget._give(n_bytes)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Whatever is taken inside the block is given back at its end."""
        before = self.held
        try:
            yield
        finally:
            self.give(max(0, self.held - before))

    def check(self, n_bytes: int) -> None:
        """Refuse what would not fit if there were no other request.

        Raises:
            ServiceError: this request can never be served.
        """
        wanted, total = self.held + n_bytes, self.budget.total
        if wanted > total:
            raise ServiceError(
                "too-much-memory",
                f"The request would hold {wanted} bytes in memory; all requests together have "
                f"{total}: send less audio at once, ask for fewer windows, or use stream=true.",
                limit=total,
                observed=wanted,
                unit="bytes",
            )

    def _is_small(self, n_bytes: int, part: float) -> bool:
        """Whether with `n_bytes` more this request holds at most that part of the budget."""
        return self.held + n_bytes <= part * self.budget.total

    def _full(self, n_bytes: int) -> ServiceError:
        used, total = self.budget.used, self.budget.total
        return ServiceError(
            "overloaded",
            f"Requests in hand hold {used} of {total} bytes of memory; this one needs {n_bytes} "
            "more.",
            limit=total,
            observed=used + n_bytes,
            unit="bytes",
            retry_after_s=RETRY_AFTER_S,
        )


@dataclass(frozen=True)
class Costs:
    """Where the work for one request is counted.

    Attributes:
        share: the bytes that it holds.
        spend: is told the seconds of audio that were decoded, whatever became of them.
    """

    share: Share
    spend: Callable[[float], None]


def free() -> Costs:
    """The costs of the service's own work: nothing is limited and nothing is charged."""
    return Costs(Budget(sys.maxsize).share(), lambda seconds: None)
