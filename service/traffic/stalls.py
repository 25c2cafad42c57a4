"""Closes connections whose client does not read what it is sent."""

import asyncio
from typing import Any


class StallTimer:
    """Closes a connection from which the client has read nothing for so many seconds.

    It is aborted: closing would wait for ever for what is still to be sent. The protocol calls
    `start` and `stop` where asyncio tells it to pause and to resume writing.
    """

    def __init__(self, transport: asyncio.Transport, timeout_s: float) -> None:
        self._transport, self._timeout_s = transport, timeout_s
        self._timer: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=0)  # to be told when all has left

    def start(self) -> None:
        """Something waits to be read: start the timer."""
        self.stop()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout_s, self._transport.abort)

    def stop(self) -> None:
        """Everything was read, or the connection has ended: stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class StallWatch(asyncio.Protocol):
    """A protocol's part that aborts a connection whose client has stopped reading.

    The protocol that it is mixed into calls `watch_stalls` when the connection is there.
    """

    stall: StallTimer

    def watch_stalls(self, transport: Any, timeout_s: float) -> None:
        """Begin to watch; asyncio calls the two methods below."""
        self.stall = StallTimer(transport, timeout_s)

    def pause_writing(self) -> None:
        """The client reads more slowly than is written."""
        super().pause_writing()
        self.stall.start()

    def resume_writing(self) -> None:
        """The client has read everything."""
        super().resume_writing()
        self.stall.stop()
