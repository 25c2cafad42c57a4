"""A small balancer: a request that one replica does not answer is asked of the next one."""

import asyncio
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

CONNECT_S = 2.0
ANSWER_S = 60.0
GONE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Balancer:
    """Takes one request a connection, and each replica in turn, as nginx is told to."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = itertools.cycle(ports)
        self._n_replicas = len(ports)
        self.retried = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one request on, and its answer back."""
        try:
            request = await _whole(reader)
            writer.write(await self._answer(request))
            await writer.drain()
        finally:
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        for _ in range(2 * self._n_replicas):
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                answer = await asyncio.wait_for(_asked(next(self._ports), request), ANSWER_S)
                if not answer.startswith(b"HTTP/1.1 503"):
                    return answer
            self.retried += 1
        return GONE


async def _asked(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), CONNECT_S)
    try:
        writer.write(request)
        await writer.drain()
        return await _whole(reader)
    finally:
        writer.close()


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer that says how long it is."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    return head + await reader.readexactly(sum(lengths))


@contextmanager
def balancing(ports: Sequence[int]) -> Iterator[tuple[int, Balancer]]:
    """A balancer in a thread: its port, and itself."""
    balancer, loop = Balancer(ports), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(balancer.serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], balancer
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
