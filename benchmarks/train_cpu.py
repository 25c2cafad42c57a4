"""Training speed on the cores of a CPU: recipes, threads and processes beside one another.

    python benchmarks/train_cpu.py STORE [--rounds 3] [--cores 2] [--seconds 25]

Every candidate is `viola train` itself, in a process of its own (or one a core, through torchrun
and gloo), in turn, several rounds. Each trains for about `--seconds`; what it logs after its first
steps counts. The store has its log-mels before the first round, so that none pays for them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track

from training.data.corpus import Corpus
from training.data.log_mels import compute

console = Console(stderr=True)


@dataclass(frozen=True)
class Candidate:
    """One way to train.

    Attributes:
        recipe: name of the recipe; its batch and precision are kept.
        expected: segments a second, roughly: how many steps fit into the time.
        threads: OpenMP threads of a process.
        processes: processes, which share the batch.
        wait: what a thread does that has nothing to do.
    """

    recipe: str
    expected: int
    threads: int = 1
    processes: int = 1
    wait: str = "passive"

    def command(self, store: Path, out: Path, steps: int) -> list[str]:
        """What to run."""
        settings = [f"run.steps={steps}", "run.log_every=1", f"run.views_every={steps + 1}"]
        settings += ["optimizer.schedule=cosine", "optimizer.warmup_steps=1"]
        options = [part for setting in settings for part in ("--set", setting)]
        start = [sys.executable, "-m"]
        if self.processes > 1:
            start += ["torch.distributed.run", "--nproc-per-node", str(self.processes), "-m"]
        train = ["viola", "train", self.recipe, "--store", str(store), "--out", str(out)]
        return [*start, *train, "--device", "cpu", *options]

    def measure(self, store: Path, seconds: float, batch: int) -> float:
        """Segments a second, the median of the steps after the first quarter."""
        steps = max(8, round(seconds * self.expected / batch))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": self.wait,
        }
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            command = self.command(store, out, steps)
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
            logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        took = [line["segments_per_s"] for line in logged if "segments_per_s" in line]
        return median(took[len(took) // 4 :])


def candidates(n_cores: int) -> dict[str, Candidate]:
    """By name: the light recipe in several ways, then the others in the way it does by default."""
    return {
        "light, 1 thread": Candidate("light", 400),
        f"light, {n_cores} threads, passive": Candidate("light", 500, n_cores),
        f"light, {n_cores} threads, spinning": Candidate("light", 500, n_cores, wait="active"),
        f"light, {n_cores} processes": Candidate("light", 600, processes=n_cores),
        f"byol-a-v1, {n_cores} threads": Candidate("byol-a-v1", 60, n_cores),
        f"byol-a-v2, {n_cores} threads": Candidate("byol-a-v2", 30, n_cores),
        f"default, {n_cores} threads": Candidate("default", 100, n_cores),
    }


def table(speeds: dict[str, list[float]]) -> Iterator[str]:
    """Lines of Markdown; the first candidate is what the others are compared with."""
    yield "| way | segments a second | lowest to highest | times the first |"
    yield "|---|---:|---:|---:|"
    first = median(next(iter(speeds.values())))
    for name, values in speeds.items():
        middle = median(values)
        yield (
            f"| {name} | {middle:.0f} | {min(values):.0f} to {max(values):.0f} "
            f"| {middle / first:.2f} |"
        )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names to measure")
    arguments = parser.parse_args()
    from training import recipe as recipes

    compute(
        Corpus(arguments.store), lambda clips, title: track(list(clips), title, console=console)
    )
    chosen = {
        name: candidate
        for name, candidate in candidates(arguments.cores).items()
        if not arguments.only or name.startswith(tuple(arguments.only))
    }
    speeds: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(arguments.rounds):
        for name, candidate in chosen.items():
            batch = recipes.load(candidate.recipe, []).run.batch_size
            speeds[name].append(candidate.measure(arguments.store, arguments.seconds, batch))
            console.print(f"{name}: {speeds[name][-1]:.0f} segments/s", highlight=False)
    print("\n".join(table(speeds)))


if __name__ == "__main__":
    main()
