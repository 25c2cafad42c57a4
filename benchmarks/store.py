"""A store of AudioSet's size: opened, drawn from, added to, merged of parts; and preparing speed.

    python benchmarks/store.py [--clips 2000000] [--seconds 10] [--batch 256] [--batches 200]
        [--audio SOURCE...] [--workers N]

The store is synthetic: a true index, and sparse .pcm files, which take no space. So the batches
show what drawing and reading cost, not what a disk delivers. Each part runs in a fresh process;
memory is resident memory, mapped files included. With --audio those folders and tars are prepared
too, by N processes (all CPUs if not given) and by one, into stores that are thrown away.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track
from timing import spread

from models.audio import SAMPLE_RATE
from models.runtime import available_cpus
from training.data.corpus import SCHEMA, Corpus, Sampler
from training.data.merge import merge_parts
from training.data.parts import Part
from training.data.prepare import prepare, without_held
from training.data.sources import Source
from training.data.store import SHARD_BYTES, Writer
from training.data.verify import verify

SEGMENT = 15_200  # samples, 0.95 s: BYOL-A
SOURCE = "audioset"
N_PARTS = 8
Rows = list[tuple[str, str]]
T = TypeVar("T")
console = Console(stderr=True)


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        n_shards = fresh(build, store, arguments.clips, arguments.seconds)
        console.print("opening and drawing ...")
        rows = fresh(measure_reading, store, arguments.batch, arguments.batches)
        console.print("opening for adding ...")
        rows += fresh(measure_adding, store, arguments.clips)
        hours = arguments.clips * arguments.seconds / 3600
        console.print("merging parts ...")
        parted = Path(folder) / "parted"
        rows += fresh(measure_merging, parted, arguments.clips, arguments.seconds)
        rows += fresh(measure_proving, store)
        print(f"{arguments.clips:,} clips, {hours:,.0f} h, {n_shards} shards\n")
        print_table(rows)
        if arguments.audio:
            n_workers = arguments.workers or available_cpus()
            print()
            rows = []
            for workers in dict.fromkeys([n_workers, 1]):
                rows += measure_preparing(
                    arguments.audio, Path(folder) / f"prepared-{workers}", workers
                )
            print_table(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--audio", type=Path, nargs="+", default=[], metavar="SOURCE")
    parser.add_argument("--workers", type=int)
    return parser.parse_args()


def fresh(call: Callable[..., T], *arguments: object) -> T:
    """Call in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def file_name(clip: int) -> str:
    return f"unbalanced/Y{clip:011d}_30.000.flac"


def build(store: Path, n_clips: int, seconds: float, seed: int = 0) -> int:
    """Write the index of a store, and PCM that is one hole; the number of shards."""
    store.mkdir(parents=True)
    length = int(seconds * SAMPLE_RATE)
    per_shard = -(-SHARD_BYTES // (2 * length))
    digests = np.random.default_rng(seed)
    firsts = range(0, n_clips, per_shard)
    for number, first in enumerate(track(firsts, "building the store", console=console)):
        n_rows = min(per_shard, n_clips - first)
        index = pa.table(
            [
                [SOURCE] * n_rows,
                [file_name(clip) for clip in range(first, first + n_rows)],
                np.arange(n_rows) * length,
                np.full(n_rows, length),
                [digests.bytes(32) for _ in range(n_rows)],
            ],
            schema=SCHEMA,
        )
        path = store / f"shard-{number:05d}.pcm"
        path.touch()
        os.truncate(path, 2 * n_rows * length)
        pq.write_table(index, path.with_suffix(".parquet"))
    return len(firsts)


def measure_reading(store: Path, batch_size: int, n_batches: int) -> Rows:
    before = resident_mib()
    corpus, open_s = timed(lambda: Corpus(store))
    after = resident_mib()
    descriptors = len(os.listdir("/proc/self/fd"))
    sampler = Sampler(corpus, {}, seed=0)
    _, permutation_s = timed(lambda: sampler.batch(0, batch_size))
    times = []
    for step in track(range(n_batches), "drawing batches", console=console):
        start = time.perf_counter()
        clips, rng = sampler.batch(step, batch_size)
        corpus.segments(clips, SEGMENT, rng, "end")
        times.append(time.perf_counter() - start)
    return [
        ("open for training, s", f"{open_s:.2f}"),
        ("resident memory before and after, MiB", f"{before:.0f}, {after:.0f}"),
        ("open file descriptors", str(descriptors)),
        ("first batch: permutation of an epoch, s", f"{permutation_s:.2f}"),
        (f"batch of {batch_size} x 0.95 s, ms", spread(times, 1_000)),
    ]


def measure_adding(store: Path, n_clips: int) -> Rows:
    """What a second run of `prepare` does before it decodes the first file."""
    before = resident_mib()
    files = pa.table(
        {
            "name": pa.array(file_name(clip) for clip in range(n_clips + 1_000)),
            "offset": np.zeros(n_clips + 1_000, np.int64),
            "size": np.full(n_clips + 1_000, -1),
        }
    )
    listed = [Source(SOURCE, Path("audio"), files)]
    (rest,), compare_s = timed(lambda: without_held(listed, store))
    writer, open_s = timed(lambda: Writer(store, SHARD_BYTES))
    with writer:
        return [
            (f"compare a list of {n_clips + 1_000:,} files, s", f"{compare_s:.2f}"),
            ("files that are new", f"{rest.n_files:,}"),
            ("open for adding, s", f"{open_s:.2f}"),
            ("resident memory before and at most, MiB", f"{before:.0f}, {peak_mib():.0f}"),
        ]


def measure_merging(store: Path, n_clips: int, seconds: float) -> Rows:
    """What `prepare --merge` does once every part is proved; no clip is in two of them."""
    parts = [Part(number, N_PARTS).folder(store) for number in range(1, N_PARTS + 1)]
    for seed, part in enumerate(parts):
        build(part, n_clips // N_PARTS, seconds, seed)
    before = resident_mib()
    report, merge_s = timed(lambda: merge_parts(store, parts))
    return [
        (f"merge {N_PARTS} parts of {report.clips:,} clips, s", f"{merge_s:.1f}"),
        ("resident memory before and at most, MiB", f"{before:.0f}, {peak_mib():.0f}"),
    ]


def measure_proving(store: Path) -> Rows:
    """How fast one thread proves the clips of a shard that is in memory."""
    with tempfile.TemporaryDirectory() as folder:
        for path in store.glob("shard-00000.*"):
            (Path(folder) / path.name).symlink_to(path)
        n_bytes = (store / "shard-00000.pcm").stat().st_size
        _, seconds = timed(lambda: verify(Path(folder), workers=1, progress=False))
    return [("prove the clips of parts, GB/s for each core", f"{n_bytes / seconds / 1e9:.2f}")]


def measure_preparing(sources: Sequence[Path], store: Path, workers: int) -> Rows:
    report, seconds = timed(lambda: prepare(sources, store, workers=workers))
    speed = report.hours / seconds * 60
    files = f"{report.clips + report.duplicates:,} files, {report.hours:.2f} h"
    return [
        (f"{workers} processes: {files}, s", f"{seconds:.1f}"),
        (f"{workers} processes: hours of audio a minute", f"{speed:.2f}"),
        (f"{workers} processes: the same for each", f"{speed / workers:.2f}"),
    ]


def timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_table(rows: Rows) -> None:
    print("| measure | value |\n|---|---|")
    for measure, value in rows:
        print(f"| {measure} | {value} |")


if __name__ == "__main__":
    main()
