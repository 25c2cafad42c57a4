"""What the service carries: throughput, latency, overload, fairness, start, memory.

    python benchmarks/serve.py [--throughput] [--latency] [--mixed] [--start] [--memory] [--quick]
        [--lengths SECONDS ...]

All tables unless some are named. The service, the load (`load.py`) and the authors' way
(`authors_server.py`) are processes of their own on the same cores, so what the client takes is
missing from the service. The recordings are made of the clips in samples/, repeated.
"""

import argparse
import io
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from processes import (
    FORMATS,
    HERE,
    children_mb,
    cpu_s,
    load,
    process,
    recording,
    resident_mb,
    viola,
    watched,
)
from timing import PAUSE_S, spread

from models import audio
from models.audio import SAMPLE_RATE
from models.modelfile import DEFAULT_MODEL
from models.runtime import Encoder, available_cpus
from models.tiles import batch_size

URL = "/v1/audio/embeddings?output=base64"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    folder: Path
    rounds: int
    seconds: float
    quick: bool
    concurrency: int
    lengths: tuple[int, ...] = ()
    """Of the recordings, in seconds; empty: those of the table."""


@dataclass(frozen=True)
class Measured:
    """Audio seconds by the clock, and by the CPU time that they cost."""

    rate: float
    per_core: float


def rate(found: dict[str, Any]) -> float:
    """Requests answered with 200 a second."""
    return sum(status == 200 for status, _ in found["results"]) / float(found["seconds"])


def bare(encoder: Encoder, lanes: int, samples: np.ndarray, seconds: float) -> Measured:
    """The session alone, in so many threads, on the batches that the service makes."""
    tiling = encoder.tiling
    if len(samples) <= tiling.tile_samples:
        most = tiling.max_rows(tiling.bucket(len(samples)))
        output, batches = "embedding", [[samples] * batch_size(most, most)]
    else:
        output, batches = "frames", [[tile.samples] for tile in tiling.cut([samples])]
    feeds = [feed(batch, tiling.bucket(len(batch[0]))) for batch in batches]
    audio_s = len(samples) / SAMPLE_RATE * len(batches[0]) / len(feeds)
    started, cpu = time.perf_counter(), time.process_time()
    counts: list[int] = []

    def run() -> None:
        for count in itertools.count(1):
            encoder._session.run([output], feeds[count % len(feeds)])
            if time.perf_counter() - started > seconds:
                counts.append(count)
                return

    threads = [threading.Thread(target=run) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    return Measured(audio_s * sum(counts) / took, audio_s * sum(counts) / cpu)


def feed(batch: list[np.ndarray], bucket: int) -> dict[str, np.ndarray]:
    waveform = np.zeros((len(batch), bucket), np.float32)
    for row, clip in zip(waveform, batch, strict=True):
        row[: len(clip)] = clip
    return {"waveform": waveform, "length": np.array([len(clip) for clip in batch], np.int64)}


def throughput(plan: Plan) -> None:
    """Audio seconds a second, all ways in turn in every round."""
    cpus = available_cpus()
    apart, together = Encoder.open(DEFAULT_MODEL, threads=1), Encoder.open(DEFAULT_MODEL)
    lengths = plan.lengths or ((1, 10) if plan.quick else (1, 10, 60))
    authors = [str(HERE / "authors_server.py"), "--threads", str(cpus)]
    print(f"\nseconds of audio a second, {plan.concurrency} requests at a time")
    columns = f"{'of bare':>8} {'of authors':>11} {'per core-second':>16}"
    print(f"{'clip':>6} {'way':>22} {'median [quartiles]':>24} {columns}")
    with viola() as service, process(authors) as theirs:
        ceiling = load(service[0], "/livez", plan.seconds)
        print(f"the client itself, /livez: {rate(ceiling):.0f} requests a second")
        for length in lengths:
            samples = audio.decode(recording(plan.folder, length))
            ways: dict[str, Callable[[], Measured]] = {
                "bare": partial(bare, apart, cpus, samples, plan.seconds),
                "bare, one at a time": partial(bare, together, 1, samples, plan.seconds),
                "authors": served(plan, theirs, "/", length, "WAV", concurrency=1),
            }
            for name in FORMATS:
                ways[name] = served(plan, service, URL, length, name, concurrency=plan.concurrency)
            show(length, in_turn(ways, plan.rounds))


def served(
    plan: Plan, server: tuple[int, int], path: str, length: float, name: str, concurrency: int
) -> Callable[[], Measured]:
    port, pid = server
    file = str(recording(plan.folder, length, name))

    def measure() -> Measured:
        cpu = cpu_s(pid)
        found = load(port, path, plan.seconds, file=file, concurrency=concurrency)
        audio_s = length * rate(found) * found["seconds"]
        return Measured(length * rate(found), audio_s / (cpu_s(pid) - cpu))

    return measure


def in_turn(ways: dict[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    rates: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            time.sleep(PAUSE_S)
            rates[name].append(measure())
    return rates


def show(length: float, measured: dict[str, list[Measured]]) -> None:
    rates = {name: [one.rate for one in values] for name, values in measured.items()}
    for name, values in rates.items():
        of_bare = median(values) / median(rates["bare"])
        of_authors = median(values) / median(rates["authors"])
        core = median(one.per_core for one in measured[name])
        print(
            f"{length:>4} s {name:>22} {spread(values, digits=1):>24} {100 * of_bare:>6.0f} % "
            f"{of_authors:>11.2f} {core:16.1f}"
        )


def latency(plan: Plan) -> None:
    """Open loop at shares of the capacity, which a closed loop finds first."""
    print("\nlatency from when a request was due, ms; Poisson arrivals")
    columns = f"{'sent/s':>7} {'200':>6} {'503':>6} {'else':>5} {'p50':>7} {'p95':>7} {'p99':>7}"
    print(f"{'clip':>6} {'load':>6} {columns} {'503 p50':>8} {'503 p99':>8}")
    with viola() as (port, _):
        for length in (1, 10):
            file = str(recording(plan.folder, length))
            load(port, URL, 1, file=file)  # wakes up what sleeps
            found = load(port, URL, 2 * plan.seconds, file=file, concurrency=plan.concurrency)
            capacity = rate(found)
            for share in (0.25, 0.5, 0.75, 1.0, 2.0, 5.0):
                sent = share * capacity
                found = load(port, URL, 3 * plan.seconds, file=file, rate=sent)
                good = [s for status, s in found["results"] if status == 200]
                refused = [s for status, s in found["results"] if status == 503]
                rest = len(found["results"]) - len(good) - len(refused)
                print(
                    f"{length:>4} s {share:>6.0%} {sent:7.1f} {len(good):6d} {len(refused):6d} "
                    f"{rest:5d} {quantiles(good, 50, 95, 99)} {quantiles(refused, 50, 99)}"
                )
                time.sleep(1)


def quantiles(seconds: list[float], *percents: float) -> str:
    if not seconds:
        return " ".join(["      -"] * len(percents))
    return " ".join(f"{value * 1000:7.1f}" for value in np.percentile(seconds, percents))


def mixed(plan: Plan) -> None:
    """One-second clips while recordings of ten minutes are embedded."""
    print("\none-second clips at a quarter of capacity, ms")
    print(f"{'beside':>26} {'p50':>7} {'p95':>7} {'p99':>7} {'else':>5} {'ten minutes, s':>15}")
    file, long = recording(plan.folder, 1), recording(plan.folder, 600)
    with viola() as (port, _):
        load(port, URL, 1, file=str(file))
        found = load(port, URL, 2 * plan.seconds, file=str(file), concurrency=plan.concurrency)
        sent = rate(found) / 4
        for n_long in (0, 1, 2, 4):
            with beside(port, str(long), n_long) as took:
                found = load(port, URL, 3 * plan.seconds, file=str(file), rate=sent)
            good = [s for status, s in found["results"] if status == 200]
            rest = len(found["results"]) - len(good)
            print(
                f"{n_long:>2} recordings of 10 min    {quantiles(good, 50, 95, 99)} {rest:5d} "
                f"{np.median(took) if took else float('nan'):15.1f}"
            )


@contextmanager
def beside(port: int, file: str, concurrency: int) -> Iterator[list[float]]:
    """Long recordings one after the other while something else is measured; their seconds."""
    took: list[float] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            found = load(port, URL, 0.1, file=file, concurrency=1)
            took.extend(s for status, s in found["results"] if status == 200)

    threads = [threading.Thread(target=run) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    yield took
    stop.set()
    for thread in threads:
        thread.join()


def start(plan: Plan) -> None:
    """From the start of the process to the first 200 of /readyz, and what it then holds."""
    took, service, children = [], [], []
    for _ in range(plan.rounds):
        started = time.perf_counter()
        with viola() as (_, pid):
            took.append(time.perf_counter() - started)
            time.sleep(1)
            service.append(resident_mb(pid))
            children.append(children_mb(pid))
    print("\ncold start and idle memory")
    print(f"ready after            {spread(took)} s")
    print(f"RSS of the service     {spread(service, digits=0)} MB")
    print(f"RSS of its decoders    {spread(children, digits=0)} MB")


def memory(plan: Plan) -> None:
    """The highest RSS of the service and its children while one recording is streamed."""
    lengths = plan.lengths or ((10, 60, 600) if plan.quick else (10, 60, 600, 3600, 36_000))
    print("\none recording, ?stream=true&window_s=1: peak RSS, MB")
    columns = f"{'service':>8} {'children':>9} {'seconds':>8} {'x real time':>12}"
    print(f"{'length':>8} {'format':>6} {columns} {'first line, s':>14}")
    for name in ("WAV", "FLAC"):
        for length in lengths:
            streamed(recording(plan.folder, length, name), length, name)


def streamed(path: Path, length: int, name: str) -> None:
    """One recording through a service of its own, in chunks and answered in lines."""
    limit = {"max_stream_duration_s": length + 1}  # beyond the default for ten hours
    with viola(**limit) as (port, pid), watched(pid) as peaks:
        started, first = time.perf_counter(), 0.0
        asked = {"stream": "true", "window_s": "1", "output": "base64"}
        url = f"http://127.0.0.1:{port}/v1/audio/embeddings"
        with (
            path.open("rb") as body,
            httpx.stream("POST", url, params=asked, content=chunks(body), timeout=600) as answer,
        ):
            for line in answer.iter_lines():  # noqa: B007 the last is looked at
                first = first or time.perf_counter() - started
        took = time.perf_counter() - started
        assert json.loads(line)["object"] == "done", line
    print(
        f"{length:>6} s {name:>6} {peaks[0]:8.0f} {peaks[1]:9.0f} {took:8.1f} "
        f"{length / took:12.0f} {first:14.2f}",
        flush=True,
    )


def chunks(body: io.BufferedReader) -> Iterator[bytes]:
    while chunk := body.read(1 << 18):
        yield chunk


TABLES = {
    "throughput": throughput,
    "latency": latency,
    "mixed": mixed,
    "start": start,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, table in TABLES.items():
        parser.add_argument(f"--{name}", action="store_true", help=table.__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few and short")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--concurrency", type=int, default=8, help="of the closed loops")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=(), help="in s, of --throughput and --memory"
    )
    asked = parser.parse_args()
    rounds, seconds = (2, 1.0) if asked.quick else (asked.rounds, asked.seconds)
    chosen = [name for name in TABLES if getattr(asked, name)] or list(TABLES)
    print(f"{available_cpus()} CPUs for service and client together")
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            Path(folder), rounds, seconds, asked.quick, asked.concurrency, tuple(asked.lengths)
        )
        for name in chosen:
            TABLES[name](plan)


if __name__ == "__main__":
    main()
