"""Decoders that are killed under load."""

import argparse
import os
import random
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.fault_tables.service import HEAD, JSON_URL, LINE, Outcomes, service
from benchmarks.processes import decoders, load, recording

KILL_EVERY_S = (0.0, 1.0, 0.2)  # never, then ever more often


def table(asked: argparse.Namespace) -> None:
    """Decoders killed again and again under steady load, and what that costs the neighbours."""
    columns = "p50, ms | p99, ms | RSS, MB"
    print(f"\n| a kill every | killed | {HEAD} | {columns} |\n|---|---|{LINE}|---|---|---|")
    p99: dict[float, list[float]] = {every_s: [] for every_s in KILL_EVERY_S}
    with service() as (client, pid, peak), tempfile.TemporaryDirectory() as folder:
        port, file = client.base_url.port, str(recording(Path(folder), 1, "FLAC"))
        load(port, JSON_URL, 2, file=file)
        found = load(port, JSON_URL, 5, file=file)
        rate = sum(status == 200 for status, _ in found["results"]) / found["seconds"] / 4
        for number, every_s in enumerate(KILL_EVERY_S * 3):
            with killing(pid, every_s) if every_s else nullcontext([]) as victims:
                found = load(port, JSON_URL, asked.seconds, file=file, rate=rate, seed=number)
            outcomes = Outcomes(status for status, _ in found["results"])
            times = np.array([s for status, s in found["results"] if status == 200]) * 1000
            p50, high = np.percentile(times, [50, 99])
            p99[every_s].append(float(high))
            often = f"{every_s:g} s" if every_s else "never"
            cells = f"{p50:.1f} | {high:.1f} | {peak.taken_mb():.0f}"
            print(f"| {often} | {len(victims)} | {outcomes.row()} | {cells} |")
    print(f"\n{rate:.0f} requests a second; medians of p99 against that without kills:")
    for every_s in KILL_EVERY_S[1:]:
        print(f"every {every_s:g} s: {median(p99[every_s]) / median(p99[0.0]) - 1:+.0%}")


@contextmanager
def killing(pid: int, every_s: float) -> Iterator[list[int]]:
    """One decoder after the other is killed meanwhile."""
    victims: list[int] = []
    stop, rng = threading.Event(), random.Random(0)

    def kill() -> None:
        while not stop.wait(every_s):
            if living := decoders(pid):
                victims.append(rng.choice(living))
                with suppress(ProcessLookupError):
                    os.kill(victims[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield victims
    finally:
        stop.set()
        thread.join()
