"""kill -9 at random moments: what was acknowledged is there, and nothing half done is left.

    python benchmarks/collections_kill.py --rounds 100
    python benchmarks/collections_kill.py --stores postgresql --database-url postgresql://...

A child adds and deletes recordings, learns and keeps classifiers, makes an index, or moves a
collection to another model; it says what it does before and after. After each kill the store is
opened again, as a service does at its start, and compared with what the child has said. One row for
each kind of work and store: of 100 rounds a store, 40 are adds and deletes, 20 of each other kind.
PostgreSQL is a server of its own unless one is named; the server itself is not killed.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.kills.said import Said
from benchmarks.postgres import server
from service.collections.store import Store, open_shared_store, open_store

STORES = ("sqlite", "postgresql")
KINDS = {
    "adds and deletes": "adding",
    "fits": "fitting",
    "index": "indexing",
    "another model": "moving",
}
SHARES = {"adds and deletes": 0.4, "fits": 0.2, "index": 0.2, "another model": 0.2}
LONGER = {"fits": 4.0}  # learning takes seconds
COLUMNS = (
    "store",
    "kills during",
    "kills",
    "acknowledged",
    "deleted",
    "cut short",
    "lost or unreadable",
)


def kind_of(kind: str) -> ModuleType:
    """What does this kind of work; alone, since others load libraries that take time."""
    return import_module(f"benchmarks.kills.{KINDS[kind]}")


def opened(where: str) -> Store:
    if "://" not in where:
        return open_store(Path(where), approximate_from=1)
    store = open_shared_store(where)
    store.index._approximate_from = 1  # type: ignore[attr-defined]
    return store


def kill_once(kind: str, where: str, said: Said, first: int, after_s: float) -> float:
    """One child, killed so long after its first word; seconds that the next start takes."""
    command = [sys.executable, __file__, "--work", kind, where, "--first", str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        time.sleep(after_s)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
    assert lines[0], f"the child of {kind} died by itself"
    said.hear(line for line in lines if line.endswith("\n"))
    started = time.perf_counter()
    store = opened(where)
    took_s = time.perf_counter() - started
    try:
        kind_of(kind).check(store, said)
    finally:
        store.close()
    return took_s


def begin(kind: str, where: str) -> None:
    """Make ready what children of this kind work on."""
    store = opened(where)
    kind_of(kind).before(store)
    store.close()


def row(store: str, kind: str, where: str, asked: argparse.Namespace, starts: list[float]) -> str:
    """Kill children of one kind, and tell of them."""
    rng, said = random.Random(asked.seed), Said()
    rounds = max(1, round(asked.rounds * SHARES[kind]))
    begin(kind, where)
    for number in range(rounds):
        after_s = asked.longest_s * LONGER.get(kind, 1.0) * rng.random()
        starts.append(kill_once(kind, where, said, 10_000 * number, after_s))
    counts = (rounds, len(said.present) + len(said.gone), len(said.gone), len(said.open), 0)
    return f"| {store} | {kind} | " + " | ".join(f"{n:,}" for n in counts) + " |"


@contextmanager
def place(store: str, asked: argparse.Namespace) -> Iterator[str]:
    """Where a store of that kind is."""
    if store == "postgresql":
        with server(asked.database_url) as address:
            yield address
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="kills of each store")
    parser.add_argument("--longest-s", type=float, default=1.0, help="from first word to kill")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--database-url", help="a PostgreSQL database; else a server of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        kind, where = asked.work
        kind_of(kind).work(opened(where), asked.first)
        return
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    starts: dict[str, list[float]] = {store: [] for store in asked.stores}
    for store in asked.stores:
        with place(store, asked) as where:
            for kind in asked.kinds:
                print(row(store, kind, where, asked, starts[store]), flush=True)
    for store, took in starts.items():
        median, longest = np.median(took), max(took)
        print(f"{store}, start after a kill: median {median:.2f} s, longest {longest:.2f} s")


if __name__ == "__main__":
    main()
