"""`viola embed` beside `viola embed --ray local` on the same files; kill -9; memory; slopes.

    python benchmarks/bulk.py [--files 200] [--rounds 3] [--kills 4] [--tiny 1000 100000]

Four stages, each alone with `--stage speed|kills|memory|listing`:

- speed: both commands in turn on `--files` clips of 10 s and on three times as many. What they
  differ by is what a file costs, without what a start does; both are shown, medians over rounds.
- kills: SIGKILL of the command with its Ray, and of one worker, in turn at random moments, and
  the same command again until it ends; then every file is counted in the output.
- memory: the largest process of each kind, for few and for many files of 0.1 s (hard links), and
  the bytes of Ray's checkpoints.
- listing: seconds and memory to list a folder and to read a manifest, for a tenth and for all.

Everything lies in a folder that is thrown away. Some 8 minutes on two idle cores.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

ROOT = Path(__file__).parent.parent
RATE = 16_000
CLIP_S, TINY_S = 10.0, 0.1
LARGER = 3  # times as many files
POLL_S = 0.2
START_S = 90.0  # until results appear
N_LISTED = 1_000_000  # of a manifest
N_FOLDER = 100_000
N_MADE = 50  # files that have so many names: ext4 allows each 65,000
CPUS = len(os.sched_getaffinity(0))


def main() -> None:
    arguments = parse()
    stages: dict[str, Callable[[Path], None]] = {
        "speed": lambda folder: speed(folder, arguments.files, arguments.rounds),
        "kills": lambda folder: kills(folder, arguments.files, arguments.kills, arguments.seed),
        "memory": lambda folder: memory(folder, arguments.tiny),
        "listing": lambda folder: listing(folder, arguments.listed),
    }
    for name, stage in stages.items():
        if arguments.stage in (None, name):
            with tempfile.TemporaryDirectory(prefix="viola-bulk-") as folder:
                stage(Path(folder))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=["speed", "kills", "memory", "listing"])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--tiny", type=int, nargs="+", default=[1_000, 30_000])
    parser.add_argument("--listed", type=int, default=N_LISTED)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def begin(sources: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """`viola embed`, in a session of its own, so that it can be killed with all its processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "viola", "embed", str(sources), "-o", str(out), *options],
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for a command and return its output; one that failed ends the benchmark."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"viola embed ended with {process.returncode}:\n{said}")
    return said


def write_clips(folder: Path, n_files: int, seconds: float) -> Path:
    """Files of noise, each another one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(n_files):
        noise = rng.normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
        sf.write(folder / f"{number:06}.wav", noise, RATE)
    return folder


def speed(folder: Path, n_files: int, rounds: int) -> None:
    few = write_clips(folder / "few", n_files, CLIP_S)
    many = write_clips(folder / "many", LARGER * n_files, CLIP_S)
    seconds: dict[tuple[str, Path], list[float]] = {}
    for number in range(rounds):
        for name, options in (("embed", ()), ("--ray local", ("--ray", "local"))):
            for sources in (few, many):
                start = time.perf_counter()
                ended(
                    begin(
                        sources,
                        folder / f"{name.strip('- ')}-{number}.parquet",
                        *options,
                        "--force",
                    )
                )
                seconds.setdefault((name, sources), []).append(time.perf_counter() - start)
    print(
        f"\n{n_files} and {LARGER * n_files} WAV files of {CLIP_S:g} s, {CPUS} cores, "
        f"{rounds} rounds"
    )
    print("| command | s, few | s, many | ms a file | files a s | audio s a core-s | start, s |")
    print("|---|---|---|---|---|---|---|")
    costs = {}
    for name in ("embed", "--ray local"):
        short, long = (median(seconds[name, sources]) for sources in (few, many))
        costs[name] = cost = (long - short) / ((LARGER - 1) * n_files)
        print(
            f"| {name} | {short:.1f} | {long:.1f} | {1e3 * cost:.1f} | {1 / cost:.1f} | "
            f"{CLIP_S / cost / CPUS:.0f} | {short - n_files * cost:.1f} |"
        )
    over = 100 * (costs["--ray local"] / costs["embed"] - 1)
    print(f"\na file costs {over:+.1f} % on Ray")


def kills(folder: Path, n_files: int, n_kills: int, seed: int) -> None:
    """Every second time a worker alone, so that Ray has to go on without it."""
    chance = random.Random(seed)
    sources = write_clips(folder / "sounds", LARGER * n_files, CLIP_S)
    out = folder / "vectors.parquet"
    parts = folder / "vectors.parquet.progress" / "parts"
    killed: Counter[str] = Counter()
    process = begin(sources, out, "--ray", "local")
    for number in range(n_kills):
        wait_for_more(parts, process)
        time.sleep(chance.uniform(0, 2))
        if process.poll() is not None:
            break
        if number % 2:
            workers = [pid for pid, name in family(process.pid) if "MapWorker" in name]
            if workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed["a worker"] += 1
        else:
            end_all(process)
            killed["the command"] += 1
            process = begin(sources, out, "--ray", "local")
    ended(process)
    rows = Counter(pq.read_table(out, columns=["file"])["file"].to_pylist())
    failed = len(rows) - pq.read_table(out, columns=["error"])["error"].null_count
    lost = {str(path) for path in sources.iterdir()} - set(rows)
    twice = sum(count > 1 for count in rows.values())
    print(f"\nkilled {dict(killed)}; {len(rows)} files in the output: {len(lost)} lost, ", end="")
    print(f"{twice} twice, {failed} failed")


def end_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL of the command and of all that it has started."""
    started = [pid for pid, _ in family(process.pid)]
    os.killpg(process.pid, signal.SIGKILL)
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def memory(folder: Path, counts: list[int]) -> None:
    print(
        "\n| files of 0.1 s | seconds | the command, MiB | largest worker, MiB | decoder, MiB "
        "| checkpoints, bytes a file |"
    )
    print("|---|---|---|---|---|---|")
    originals = sorted(write_clips(folder / "made", N_MADE, TINY_S).iterdir())
    for n_files in counts:
        sources, out = folder / f"tiny-{n_files}", folder / f"{n_files}.parquet"
        link_all(originals, sources, n_files)
        start = time.perf_counter()
        process = begin(sources, out, "--ray", "local")
        peaks, checkpoint = followed(process, out.with_name(out.name + ".progress") / "checkpoint")
        ended(process)
        took = time.perf_counter() - start
        print(
            f"| {n_files:,} | {took:.0f} | {peaks['command']:.0f} | {peaks['worker']:.0f} | "
            f"{peaks['decoder']:.0f} | {checkpoint / n_files:.0f} |",
            flush=True,
        )
        shutil.rmtree(sources)


def link_all(originals: list[Path], folder: Path, n_files: int) -> None:
    """So many names for a few files, a thousand in each folder."""
    for number in range(n_files):
        below = folder / f"{number // 1000:05}"
        if number % 1000 == 0:
            below.mkdir(parents=True)
        os.link(originals[number % len(originals)], below / f"{number:08}.wav")


def followed(process: subprocess.Popen[str], checkpoint: Path) -> tuple[dict[str, float], int]:
    """Largest resident memory by kind of process, MiB, and bytes of the checkpoints."""
    peaks, n_bytes = {"command": 0.0, "worker": 0.0, "decoder": 0.0}, 0
    said = threading.Thread(target=process.wait)
    said.start()
    while said.is_alive():
        said.join(POLL_S)
        for pid, name in [(process.pid, "command"), *family(process.pid)]:
            kind = "worker" if "MapWorker" in name else "decoder" if "fork_server" in name else name
            if kind in peaks:
                peaks[kind] = max(peaks[kind], resident_mib(pid))
        files = list(checkpoint.glob("**/*.parquet")) if checkpoint.is_dir() else []
        n_bytes = max(n_bytes, sum(size(path) for path in files))
    return peaks, n_bytes


def listing(folder: Path, n_listed: int) -> None:
    print("\n| what | files | seconds | peak memory, MiB |\n|---|---|---|---|")
    sources = folder / "folder"
    originals = sorted(write_clips(folder / "made", N_MADE, TINY_S).iterdir())
    n_folder = min(N_FOLDER, n_listed)
    for n_files in (n_folder // 10, n_folder):
        shutil.rmtree(sources, ignore_errors=True)
        link_all(originals, sources, n_files)
        print_listing("a folder", sources, n_files)
    for n_files in (n_listed // 10, n_listed):
        names = [f"s3://bucket/recordings/2026/{number:012}.flac" for number in range(n_files)]
        pq.write_table(pa.table({"file": names}), folder / "list.parquet")
        print_listing("a manifest", folder / "list.parquet", n_files)


def print_listing(what: str, source: Path, n_files: int) -> None:
    """Measure `list_here` in a fresh process, for the sake of its memory, and print a row."""
    code = "import sys, benchmarks.bulk as bulk; bulk.list_here(sys.argv[1])"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(source)], cwd=ROOT, capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(ran.stderr)
    found = json.loads(ran.stdout)
    print(f"| {what} | {n_files:,} | {found['seconds']:.2f} | {found['mib']:.0f} |", flush=True)


def list_here(source: str) -> None:
    """List a source as a run does at its beginning; print the seconds and the memory that took."""
    from service.commands.job import Job
    from service.commands.run_folder import Progress

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        Progress(Path(folder) / "out.parquet").begin(Job("default"), "space", [source], CPUS)
        seconds = time.perf_counter() - start
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "mib": mib}))


def wait_for_more(parts: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the command has written another part of its results, or has ended."""
    before, deadline = len(list(parts.glob("*.parquet"))), time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(parts.glob("*.parquet"))) > before:
            return
        time.sleep(POLL_S)


def family(root: int) -> list[tuple[int, str]]:
    """All processes below one: number and command line."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(path.parts[2]), path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(rest[1]), []).append(pid)
    found, waiting = [], [root]
    while waiting:
        below = parents.get(waiting.pop(), [])
        waiting += below
        found += below
    return [(pid, command_line(pid)) for pid in found]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / (1 << 20)


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    main()
