"""The time limit of decoding one file, which does not run while the file waits for memory."""

import asyncio
from typing import Self

from service.audio.decode_process import DecoderDied, DecoderProcess
from service.traffic.budget import Share

LOOK_S = 0.1  # between two looks whether anybody still waits for the file


class DecodeClock:
    """Ends a process when its time is up; while it waits for memory, its time does not run.

    Args:
        process: decodes the file.
        share: what the request holds in memory.
        allowed_s: seconds for the file.
        ahead: bytes of its samples that are in the share already.
    """

    def __init__(
        self, process: DecoderProcess, share: Share, allowed_s: float, ahead: int = 0
    ) -> None:
        self._process, self._share, self._ahead = process, share, ahead
        self._loop = asyncio.get_running_loop()
        self._left_s, self._since = allowed_s, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._nobody_waits = False

    def __enter__(self) -> Self:
        """Start."""
        self._run()
        return self

    def __exit__(self, *raised: object) -> None:
        """Stop."""
        self._pause()

    def take(self, n_bytes: int) -> None:
        """Take bytes into the share, in the thread that decodes; it waits until there is room.

        Raises:
            ServiceError: there is none in time.
            DecoderDied: nobody waits for the file any more.
        """
        paid = min(self._ahead, n_bytes)
        self._ahead, n_bytes = self._ahead - paid, n_bytes - paid
        if self._share.try_now(n_bytes):
            return
        taken = asyncio.run_coroutine_threadsafe(self._take(n_bytes), self._loop)
        while True:
            try:
                return taken.result(LOOK_S)
            except TimeoutError:  # the loop itself may wait for this thread: it has to look around
                if self._nobody_waits:
                    taken.cancel()
                    raise DecoderDied("left") from None

    def leave(self) -> None:
        """End the process, for which nobody waits."""
        self._nobody_waits = True
        self._process.expire("left")

    async def _take(self, n_bytes: int) -> None:
        self._pause()
        try:
            await self._share.take(n_bytes)
        finally:
            self._run()

    def _run(self) -> None:
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._left_s, self._process.expire)

    def _pause(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left_s = max(0.0, self._left_s - (self._loop.time() - self._since))
