"""A client that loads a service on this machine, as a process of its own; `serve.py` starts it.

    echo '{"port": 8000, "path": "/livez", "rate": 100, "seconds": 5}' | python benchmarks/load.py

Open loop: requests go out when they are due, however many are unanswered, and their latency counts
from then (a client that waits for answers would hide the queue it caused). Without a `rate` it is a
closed loop of `concurrency` requests. It speaks HTTP/1.1 over plain sockets, writes requests that
were made beforehand and looks at nothing but status and length, because it shares its cores with
what it measures. Only to 127.0.0.1, at most `MAX_REQUESTS` in at most `MAX_SECONDS`.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
MAX_SECONDS = 120
MAX_REQUESTS = 50_000
MAX_CONNECTIONS = 512
TIMEOUT_S = 60


@dataclass
class Load:
    """What to send; `file` is the body of a POST, nothing is a GET.

    `mixture`: pairs of a path and a file, of which one is drawn for each request instead.
    """

    port: int
    path: str
    seconds: float
    rate: float | None = None
    concurrency: int = 8
    file: str | None = None
    mixture: list[tuple[str, str]] = field(default_factory=list)
    requests: int = MAX_REQUESTS
    seed: int = 0
    results: list[tuple[int, float]] = field(default_factory=list)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    n_open: int = 0

    def made(self) -> list[bytes]:
        """Every request that may be sent."""
        return [written(*one) for one in self.mixture or [(self.path, self.file)]]

    async def one(self, request: bytes, due: float) -> None:
        """Send one request and note its status (0: none) and its latency from when it was due."""
        status = 0
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await self._exchange(request)
        except (OSError, EOFError, ValueError, TimeoutError):
            pass
        self.results.append((status, time.perf_counter() - due))

    async def _exchange(self, request: bytes) -> int:
        while self.idle and self.idle[-1][0].at_eof():  # closed by the service when it lay idle
            self.n_open -= 1
            self.idle.pop()[1].close()
        if self.idle:
            line = self.idle.pop()
        elif self.n_open < MAX_CONNECTIONS:
            self.n_open += 1
            line = await asyncio.open_connection(HOST, self.port, limit=1 << 20)
        else:
            raise OSError("the client is out of connections")
        reader, writer = line
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await drop_body(reader, head.lower())
        except BaseException:
            self.n_open -= 1
            writer.close()
            raise
        if b"\r\nconnection: close" in head.lower():
            self.n_open -= 1
            writer.close()
        else:
            self.idle.append(line)
        return int(head.split(b" ", 2)[1])

    async def open_loop(self, made: list[bytes]) -> None:
        """Poisson arrivals."""
        assert self.rate is not None
        rng, tasks = random.Random(self.seed), []
        due = time.perf_counter()
        end = due + min(self.seconds, MAX_SECONDS)
        while due < end and len(tasks) < self.requests:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.one(rng.choice(made), due)))
            due += rng.expovariate(self.rate)
        await asyncio.gather(*tasks)

    async def closed_loop(self, made: list[bytes]) -> None:
        rng, left = random.Random(self.seed), self.requests
        end = time.perf_counter() + min(self.seconds, MAX_SECONDS)

        async def client() -> None:
            nonlocal left
            while time.perf_counter() < end and left > 0:
                left -= 1
                await self.one(rng.choice(made), time.perf_counter())

        await asyncio.gather(*(client() for _ in range(self.concurrency)))


def written(path: str, file: str | None) -> bytes:
    """One request as it goes over the line."""
    head = f"Host: {HOST}\r\nContent-Type: application/octet-stream\r\n"
    if file is None:
        return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
    body = Path(file).read_bytes()
    head += f"Content-Length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def drop_body(reader: asyncio.StreamReader, head: bytes) -> None:
    """Read an answer to its end, whether its length is told or it comes in chunks."""
    if b"\r\ntransfer-encoding: chunked" in head:
        while length := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(length + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].split()[0]))


async def main() -> None:
    load = Load(**json.load(sys.stdin))
    started, cpu = time.perf_counter(), time.process_time()
    made = load.made()
    await (load.open_loop(made) if load.rate else load.closed_loop(made))
    for _, writer in load.idle:
        writer.close()
    took = time.perf_counter() - started
    print(json.dumps({"seconds": took, "cpu": time.process_time() - cpu, "results": load.results}))


if __name__ == "__main__":
    asyncio.run(main())
