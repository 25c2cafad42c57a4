"""Two processes of `viola serve` behind a balancer, with one Redis: one killed, one restarted."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.traffic.auth import digest_of, new_key
from tests.ports import free_port
from tests.service.conftest import encoded, tone, until
from tests.service.traffic.balancer import balancing
from tests.service.traffic.redis_server import RedisServer, started_server

pytestmark = pytest.mark.slow
URL = "/v1/audio/embeddings"
RICH, POOR, WATCHER = new_key(), new_key(), new_key()
QUOTA, CLIP_S = 100.0, 10.0
KEYS = (
    f"rich:{digest_of(RICH)} poor:{digest_of(POOR)}::{QUOTA:g} watcher:{digest_of(WATCHER)}:metrics"
)
N_REQUESTS, N_CLIENTS = 300, 4


class Replica:
    """One process of the service, which may end and start again on its port."""

    def __init__(self, port: int, environment: dict[str, str]) -> None:
        self.port, self._environment = port, environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "viola", "serve", "--port", str(self.port)],
            env=self._environment,
            cwd=Path(__file__).parents[3],
            stderr=subprocess.DEVNULL,
        )

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = started_server()
    yield server
    server.stop()
    shutil.rmtree(server.socket.parent)


@pytest.fixture
def replicas(redis: RedisServer, model_file: Path) -> Iterator[list[Replica]]:
    ours = {
        "VIOLA_MODELS": str(model_file),
        "VIOLA_API_KEYS": KEYS,
        "VIOLA_REDIS_URL": redis.url,
        "VIOLA_REDIS_TIMEOUT_S": "5",
        "VIOLA_DRAIN_DELAY_S": "0",
        "VIOLA_THREADS": "1",
    }
    found = [Replica(free_port(), os.environ | ours) for _ in range(2)]
    for replica in found:
        replica.start()
    until(lambda: all(replica.is_ready() for replica in found), 120)
    yield found
    for replica in found:
        replica.end()


def post(port: int, key: str, clip: bytes) -> int:
    headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
    return httpx.post(
        f"http://127.0.0.1:{port}{URL}", content=clip, headers=headers, timeout=120
    ).status_code


def under_load(port: int, act: Callable[[Callable[[int], None]], None]) -> Counter[int]:
    """The statuses of all requests, while `act` does something at chosen moments of them."""
    clip, statuses, numbers = encoded(tone(1.0)), Counter[int](), iter(range(N_REQUESTS))

    def load() -> None:
        for _ in numbers:
            statuses[post(port, RICH, clip)] += 1

    def after(n_requests: int) -> None:
        until(lambda: statuses.total() >= n_requests, 300)

    clients = [threading.Thread(target=load) for _ in range(N_CLIENTS)]
    for client in clients:
        client.start()
    act(after)
    for client in clients:
        client.join()
    return statuses


def test_one_is_killed_and_the_other_restarted_and_nothing_is_lost(
    replicas: list[Replica],
) -> None:
    one, other = replicas

    def act(after: Callable[[int], None]) -> None:
        after(N_REQUESTS // 10)
        one.end(signal.SIGKILL)
        after(N_REQUESTS // 3)
        one.start()
        until(one.is_ready, 120)
        other.end()  # SIGTERM: it drains
        other.start()

    with balancing([one.port, other.port]) as (port, balancer):
        assert under_load(port, act) == {200: N_REQUESTS}
        assert balancer.retried > 0
        headers = {"Authorization": f"Bearer {WATCHER}"}
        report = httpx.get(f"http://127.0.0.1:{one.port}/v1/usage", headers=headers).json()
        (rich,) = [row for row in report["data"] if row["key"] == "rich"]
        # What the killed one had decoded may have been asked again; what it had not sent is lost
        assert rich["audio_seconds"] == pytest.approx(N_REQUESTS, abs=20)


def test_two_processes_grant_one_quota(replicas: list[Replica]) -> None:
    clip, began = encoded(tone(CLIP_S)), time.monotonic()
    with balancing([replica.port for replica in replicas]) as (port, _):
        statuses = Counter(post(port, POOR, clip) for _ in range(16))
    took_s = time.monotonic() - began
    assert set(statuses) == {200, 429}
    assert QUOTA <= statuses[200] * CLIP_S <= QUOTA + took_s * QUOTA / 60 + CLIP_S
