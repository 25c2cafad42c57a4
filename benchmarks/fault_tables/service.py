"""A service under test: what its answers were, what it held in memory, whether it lives."""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from benchmarks.processes import children_mb, resident_mb, viola

URL = "/v1/audio/embeddings"
JSON_URL = f"{URL}?output=base64"
NO_ANSWER = 0


class Outcomes(Counter[int]):
    """How many requests had which status; 0 is none at all."""

    def row(self) -> str:
        """The cells of a table."""
        classes = Counter(status // 100 for status in self.elements() if status != 503)
        cells = [classes[2], classes[4], self[503], classes[5], self[NO_ANSWER]]
        return " | ".join(map(str, cells))


HEAD = "2xx | 4xx | 503 | other 5xx | no answer"
LINE = "---|---|---|---|---"


class Peak:
    """The highest RSS of a process and its children together, looked at every few ms.

    Of a forked process only its own pages count: it shares the others with its parent.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def taken_mb(self) -> float:
        """The highest RSS since the last call."""
        self._look()
        found, self._mb = self._mb, 0.0
        return found

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._look()

    def _look(self) -> None:
        self._mb = max(self._mb, resident_mb(self.pid) + children_mb(self.pid))


@contextmanager
def service(**how: object) -> Iterator[tuple[httpx.Client, int, Peak]]:
    """A service and a client of it; at the end it prints whether the process has died."""
    with viola(**how) as (port, pid):
        peak = Peak(pid)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client, pid, peak
            peak.stop()
            restarts = re.findall(
                r'restarts_total\{cause="(\w+)"\} ([\d.]+)', client.get("/metrics").text
            )
        replaced = {cause: int(float(count)) for cause, count in restarts if float(count)}
        print(f"\ndecoders replaced: {replaced or 'none'}; the service died: {not alive(pid)}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def post(client: httpx.Client, path: str, **request: object) -> int:
    """The status of the answer; NO_ANSWER if there is none."""
    try:
        return client.post(path, **request).status_code  # type: ignore[arg-type]
    except httpx.HTTPError:
        return NO_ANSWER


def live(client: httpx.Client, data: bytes) -> int:
    """A file's bytes as if they were PCM: the close code as a status."""
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/audio/stream"))
    config = {"sample_rate": 16_000, "encoding": "f32le", "window_s": 0.2}
    code = 0
    with suppress(OSError, TimeoutError, WebSocketException), connect(url, max_size=None) as line:
        with suppress(ConnectionClosed):
            line.send(json.dumps(config))
            line.send(data)
            line.send(json.dumps({"end": True}))
            while True:
                line.recv(timeout=60)
        code = line.close_code or 0
    return 200 if code == 1000 else code - 4000 if code > 4000 else NO_ANSWER


def peak_mb(pid: int) -> float:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else 0.0
    return 0.0
