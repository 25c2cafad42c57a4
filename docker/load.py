"""SIGTERM under load: whether every request that was taken is also answered."""

import threading
import time
from collections import Counter
from http.client import HTTPException
from pathlib import Path

from docker.engine import Serving
from docker.proofs import DRAIN_DELAY_S, EMBEDDINGS, SAMPLES, ask
from docker.table import Table

CLIENTS = 8
LOAD_S = 3.0  # before the signal
PAUSE_S = 0.1  # after an answer that there is no room, or no more


class Clients:
    """Clients that post one file after the other until nobody listens any more.

    Attributes:
        outcomes: how many requests came to what: a status, `refused` where no connection was to be
            had any more, `lost` where a request was sent and no whole answer came.
    """

    def __init__(self, port: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._post, args=(SAMPLES[n % len(SAMPLES)],), daemon=True)
            for n in range(CLIENTS)
        ]

    def start(self) -> None:
        """Begin to post."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish the request in hand."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _post(self, path: Path) -> None:
        body = path.read_bytes()
        while not self._over.is_set():
            outcome = self._outcome(body)
            self.outcomes[outcome] += 1
            if outcome == "refused":
                return
            if outcome != "200":
                time.sleep(PAUSE_S)

    def _outcome(self, body: bytes) -> str:
        try:
            status, _ = ask(self._port, "POST", EMBEDDINGS, body, "audio/ogg")
        except ConnectionRefusedError:
            return "refused"
        except (OSError, HTTPException):
            return "lost"
        return str(status)


def drain_under_load(container: Serving, table: Table) -> None:
    """Load it, tell it to go, and count."""
    clients = Clients(container.port)
    clients.start()
    time.sleep(LOAD_S)
    resident = container.resident_bytes()
    before = clients.outcomes["200"]
    container.terminate()
    told = time.monotonic()
    code = container.ended()
    took = time.monotonic() - told
    clients.stop()
    if resident is not None:
        table.figure("memory under load, with decoders", f"{resident / 1e6:.0f} MB")
    counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(clients.outcomes.items()))
    table.proof("requests under load", f"{counts}; {before} before SIGTERM", before > 0)
    lost = clients.outcomes["lost"]
    table.proof("lost at SIGTERM", lost, lost == 0)
    table.proof("ends by itself", f"code {code} after {took:.1f} s", code == 0)
    table.figure("of which it goes on answering for", f"{DRAIN_DELAY_S} s")
