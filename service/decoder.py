"""Bytes of a file -> samples, off the event loop and a bounded number at a time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from models import audio


class Decoder:
    """Threads that decode uploads; what waits for one is bounded by the requests in hand."""

    def __init__(self, limits: audio.Limits, workers: int) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    async def decode(self, data: bytes) -> NDArray[np.float32]:
        """The bytes of an audio file -> mono samples at 16 kHz (S,).

        Raises:
            AudioError: for anything that is wrong with the file.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, audio.decode, data, self.limits)

    def close(self) -> None:
        """Let the running files finish and drop those that wait."""
        self._threads.shutdown(cancel_futures=True)
