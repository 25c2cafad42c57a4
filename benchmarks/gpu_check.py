"""The GPU suite: does everything that needs a GPU work on this one, and how fast?

    python benchmarks/gpu_check.py [--out FOLDER] [--minutes 25] [--store STORE] [--task CSV ...]
        [--only STAGE ...] [--device cuda] [--rehearse]

Each stage is a process of its own, may take its share of the minutes, and stands alone: one that
fails or hangs costs no other, and `--only` runs some of them. The training stage gets what the
others leave. At the end one table is printed, and lies in FOLDER/table.md beside what the stages
brought back, all of it below 64 MiB. Nothing is fetched: without --store noise is made.

`--rehearse` goes the whole way on a CPU with tiny networks, in a minute or so.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

# Of 25 minutes; training has what is left
SHARES = {
    "environment": 0.5,
    "suite": 5.5,
    "throughput": 5.0,
    "losses": 3.0,
    "witness": 0.5,
    "provider": 1.0,
    "training": 9.0,
}
FULL = 25.0


def main() -> int:
    """All stages, or one of them; the number of failed rows as exit code, at most 1."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.stage:
        _one(arguments)
        return 0
    started = time.monotonic()
    store = arguments.store or _noise(arguments)
    chosen = [name for name in SHARES if not arguments.only or name in arguments.only]
    for name in chosen:
        left = 60 * arguments.minutes - (time.monotonic() - started)
        share = 60 * SHARES[name] * arguments.minutes / FULL
        if name == "training" or len(chosen) == 1:
            share = left
        _stage(arguments, name, store, max(20.0, min(share, left)))
    return _table(arguments.out, chosen)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--minutes", type=float, default=FULL)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--task", type=Path, action="append", default=[])
    parser.add_argument("--only", nargs="*", choices=list(SHARES), default=[])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--stage", choices=list(SHARES), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def _noise(arguments: argparse.Namespace) -> Path:
    from train_throughput import synthetic_store

    folder = arguments.out.parent / f"{arguments.out.name}-store"
    if not (folder / "store").is_dir():
        synthetic_store(folder, 24 if arguments.rehearse else 1000)
    return folder / "store"


def _stage(arguments: argparse.Namespace, name: str, store: Path, seconds: float) -> None:
    """Run one stage as a process that is ended when its time is over."""
    _result(arguments.out, name).unlink(missing_ok=True)
    command = [sys.executable, __file__, "--stage", name, "--seconds", f"{seconds:.0f}"]
    command += ["--out", str(arguments.out), "--store", str(store), "--device", arguments.device]
    command += [part for task in arguments.task for part in ("--task", str(task))]
    command += ["--rehearse"] if arguments.rehearse else []
    print(f"{name}: {seconds:.0f} s at most", flush=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
    }
    with (arguments.out / f"stage-{name}.log").open("w") as log:
        try:
            subprocess.run(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds + 30,
                check=True,
                env=environment,
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            _say(arguments.out, name, _why(error, arguments.out / f"stage-{name}.log"))


def _one(arguments: argparse.Namespace) -> None:
    """What the process of a stage does."""
    from importlib import import_module

    from gpu_stages.stage import Context, write

    from training.device import choose_device

    device = choose_device("cpu" if arguments.rehearse else arguments.device)
    tasks = tuple(arguments.task)
    context = Context(
        arguments.out, arguments.store, tasks, device, arguments.seconds, arguments.rehearse
    )
    rows = import_module(f"gpu_stages.{arguments.stage}").check(context)
    write(rows, _result(arguments.out, arguments.stage))


def _say(out: Path, name: str, message: str) -> None:
    from gpu_stages.stage import Row, read, write

    write([*read(_result(out, name)), Row("the stage", message, False)], _result(out, name))


def _why(error: Exception, log: Path) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"was ended after {error.timeout:.0f} s"
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return f"failed: {lines[-1].strip()[:200] if lines else 'it said nothing'}"


def _result(out: Path, name: str) -> Path:
    return out / f"stage-{name}.json"


def _table(out: Path, chosen: list[str]) -> int:
    """Print all rows and keep them."""
    from gpu_stages.stage import read

    words = {True: "yes", False: "NO", None: ""}
    lines = ["| stage | what | found | as it should be |", "|---|---|---|---|"]
    rows = [(name, row) for name in chosen for row in read(_result(out, name))]
    lines += [f"| {name} | {row.what} | {row.value} | {words[row.passed]} |" for name, row in rows]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    failed = sum(row.passed is False for _, row in rows)
    print(f"\n{failed} of {len(rows)} are not as they should be; all of it lies in {out}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
