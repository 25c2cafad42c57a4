"""Connections whose client takes nothing of what it is sent."""

import asyncio


class StallTimer:
    """Cuts a connection of which nothing has been taken for so many seconds.

    To close it is not enough: that waits for what is still to be sent, for ever. The protocol calls
    `start` and `stop` where asyncio tells it to pause and to resume writing.
    """

    def __init__(self, transport: asyncio.Transport, timeout_s: float) -> None:
        self._transport, self._timeout_s = transport, timeout_s
        self._timer: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=0)  # to be told when all has left

    def start(self) -> None:
        """Something waits to be taken."""
        self.stop()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout_s, self._transport.abort)

    def stop(self) -> None:
        """All has been taken, or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
