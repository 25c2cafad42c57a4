"""Adds a second, time of a search, recall, memory and disk against the number of vectors.

    python benchmarks/search_scale.py 10000 100000 1000000
    python benchmarks/search_scale.py 100000 --stores pgvector --database-url postgresql://...

Three rows a number: SQLite and the exact search in memory; the same file and its clusters;
pgvector, by its graph (HNSW), in a server of its own unless one is named. Each is measured in a
process of its own, which prints its row when it has it. Vectors are made: clusters in a few hundred
directions, as those of real sounds lie. Queries are vectors of the same kind. recall@10 is against
the exact search of the same store.

Adds a second are those of the first windows, and into PostgreSQL of some more once its graph is
there; each transaction is on the disk. The rest of a large collection is loaded into SQLite without
waiting for the disk. Of 1,000,000 vectors of 1,024 values
SQLite's two rows should take some 6 minutes of a free core, 5 GB of memory and 7 GB of disk;
pgvector is left out above `--pgvector-most`; its graph alone takes eight minutes and 3 GB.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
from sqlalchemy import make_url, text

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.postgres import server
from service.collections.records import Collection, CollectionNotFound, NewItem, Quota, Terms
from service.collections.store import Store, open_shared_store, open_store

STORES = ("exact", "approximate", "pgvector")
WINDOWS, LONG = 10, 100  # of an item; in a large collection
BATCH = 500  # windows in a transaction
TIMED = 20_000  # windows of which the time to add is told
AFTERWARDS = 2_000  # windows that are added to a graph
LARGE = 100_000  # windows; above, fewer queries, and nothing is deleted at the end
MEMORY = 16 << 30
NAME = "scale"
NOBODY = np.array([], np.int64)
TRUTH = "truth.npy"
COLUMNS = (
    "vectors",
    "store",
    "added a second",
    "index made in",
    "then added a second",
    "the first search",
    "p50",
    "p99",
    "recall@10",
    "memory",
    "disk",
    "deleted in",
)


class Made:
    """Clustered unit vectors (N, D)."""

    def __init__(self, dimensions: int, seed: int = 0) -> None:
        self.dimensions = dimensions
        self.rng = np.random.default_rng(seed)
        self.centres = np.random.default_rng(0).standard_normal((300, dimensions), np.float32)
        # Some directions matter far more than others
        self.scale = (1 / np.sqrt(1 + np.arange(dimensions))).astype(np.float32)

    def vectors(self, n: int) -> np.ndarray:
        chosen = self.rng.integers(len(self.centres), size=n)
        noise = self.rng.standard_normal((n, self.dimensions), np.float32)
        raw = (self.centres[chosen] + noise) * self.scale
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)

    def items(self, first: int, n: int, n_windows: int) -> Iterator[NewItem]:
        vectors = self.vectors(n * n_windows).reshape(n, n_windows, -1)
        start_s = 5.0 * np.arange(n_windows)
        for number, rows in enumerate(vectors, first):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            yield NewItem(digest, start_s, start_s + 5, rows, 5.0 * n_windows, str(number))


def fill(store: Store, made: Made, first: int, n: int, each: int) -> float:
    """Add so many windows, `each` in an item, behind `first` items; windows added a second."""
    terms = Terms("made", "made-space", made.dimensions, 5.0, 5.0)
    collection, _ = store.collections.put("", NAME, terms, Quota())
    spent_s, at_once, n_items = 0.0, max(1, BATCH // each), n // each
    for begin in range(0, n_items, at_once):
        items = list(made.items(first + begin, min(at_once, n_items - begin), each))
        started = time.perf_counter()
        store.items.add(collection, items, Quota())
        spent_s += time.perf_counter() - started
    return n_items * each / spent_s if spent_s else float("nan")


def filled(store: Store, made: Made, n_windows: int, name: str) -> float:
    """A collection of so many windows; windows added a second, at first."""
    timed = min(n_windows, TIMED)
    adds = fill(store, made, 0, timed, WINDOWS)
    each = LONG if n_windows > LARGE else WINDOWS
    with nullcontext() if name == "pgvector" else unhurried(store):
        fill(store, made, timed, n_windows - timed, each)
    return adds


@contextmanager
def unhurried(store: Store) -> Iterator[None]:
    """SQLite does not wait for the disk inside the block."""
    with store.database.read() as connection:
        raw = connection.connection.dbapi_connection  # the only one, which all here use
    raw.execute("PRAGMA synchronous = OFF")
    yield
    raw.execute("PRAGMA synchronous = FULL")


def timed(store: Store, collection: Collection, queries: np.ndarray, *, exact: bool) -> list[float]:
    """Milliseconds of each search."""
    took = []
    for query in queries:
        started = time.perf_counter()
        store.index.nearest(collection, query, 10, without=NOBODY, by_item=True, exact=exact)
        took.append(1000 * (time.perf_counter() - started))
    return took


def nearest(store: Store, collection: Collection, queries: np.ndarray, *, exact: bool) -> list:
    """The windows that each query finds."""
    found = (
        store.index.nearest(collection, query, 10, without=NOBODY, exact=exact) for query in queries
    )
    return [one.windows for one in found]


def recall(truth: list, some: list) -> float:
    """The share of the ten nearest windows that are found."""
    found = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(truth, some, strict=True))
    return found / sum(map(len, truth))


def measure(name: str, where: str, n_windows: int, dimensions: int, n_queries: int) -> None:
    """Print the row of one store."""
    if n_windows > LARGE:
        n_queries = max(10, n_queries // 5)
    made, row = Made(dimensions), dict.fromkeys(COLUMNS, "")
    row["vectors"], row["store"] = f"{n_windows:,}", name
    queries, before = Made(dimensions, 1).vectors(n_queries), resident()
    with opened(name, where) as store:
        if name != "approximate":
            started = time.perf_counter()
            row["added a second"] = f"{filled(store, made, n_windows, name):,.0f}"
            say(f"{n_windows} {name}: filled in {time.perf_counter() - started:.0f} s")
        collection, is_exact = store.collections.get("", NAME), name == "exact"
        if not is_exact:
            started = time.perf_counter()
            store.index.prepare(collection)
            row["index made in"] = f"{time.perf_counter() - started:.1f} s"
        if name == "pgvector":
            adds = fill(store, made, n_windows, AFTERWARDS, WINDOWS)
            row["then added a second"] = f"{adds:,.0f}"
            collection = store.collections.get("", NAME)
        started = time.perf_counter()
        store.index.nearest(collection, queries[0], 10, without=NOBODY, exact=is_exact)
        row["the first search"] = f"{time.perf_counter() - started:.2f} s"
        took = timed(store, collection, queries, exact=is_exact)
        row["p50"], row["p99"] = (f"{ms:.1f} ms" for ms in np.percentile(took, [50, 99]))
        memory = resident() - before
        row["memory"] = f"{(memory if '://' not in where else of_server()) / 2**20:,.0f} MB"
        row["disk"] = f"{on_disk(store, where) / 2**20:,.0f} MB"
        some = nearest(store, collection, queries[:50], exact=is_exact)
        if name == "exact":
            np.save(Path(where) / TRUTH, np.stack(some))
        elif name == "approximate":
            row["recall@10"] = f"{recall(list(np.load(Path(where) / TRUTH)), some):.3f}"
        else:
            truth = nearest(store, collection, queries[:50], exact=True)
            row["recall@10"] = f"{recall(truth, some):.3f}"
        if name != "exact" and n_windows <= LARGE:
            started = time.perf_counter()
            store.collections.delete("", NAME)
            row["deleted in"] = f"{time.perf_counter() - started:.1f} s"
    print("| " + " | ".join(row.values()) + " |", flush=True)


@contextmanager
def opened(name: str, where: str) -> Iterator[Store]:
    store = (
        open_shared_store(with_memory(where))
        if name == "pgvector"
        else open_store(Path(where), memory_bytes=MEMORY, approximate_from=1)
    )
    try:
        if name == "pgvector":
            store.index._approximate_from = 1  # type: ignore[attr-defined]
            with suppress(CollectionNotFound):
                store.collections.delete("", NAME)
        yield store
    finally:
        store.close()


def with_memory(address: str) -> str:
    """The address of a PostgreSQL, where graphs may be made in memory."""
    options = {"options": "-c maintenance_work_mem=4GB"}
    return make_url(address).update_query_dict(options).render_as_string(hide_password=False)


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def of_server() -> int:
    """Bytes of memory that PostgreSQL's processes on this machine have, shared ones once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() == "postgres":
                line = (process / "smaps_rollup").read_text().split("Pss:")[1]
                total += 1024 * int(line.split()[0])
    return total


def on_disk(store: Store, where: str) -> int:
    """Bytes of the database and of what belongs to it."""
    if "://" in where:
        with store.database.read() as connection:
            size = connection.execute(text("SELECT pg_total_relation_size('windows')"))
            return int(size.scalar_one())
    return sum(path.stat().st_size for path in Path(where).rglob("*") if path.is_file())


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("windows", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--database-url", help="a PostgreSQL database; else a server of its own")
    parser.add_argument("--pgvector-most", type=int, default=LARGE, help="windows")
    parser.add_argument("--folder", type=Path, help="where the files go; else a temporary folder")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        name, where = asked.one
        measure(name, where, asked.windows[0], asked.dimensions, asked.queries)
        return
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for n_windows in asked.windows:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(dir=asked.folder))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            for name in STORES:
                where = str(folder)
                if name not in asked.stores:
                    continue
                if name == "pgvector":
                    if n_windows > asked.pgvector_most:
                        say(f"{n_windows} pgvector: left out, see --pgvector-most")
                        continue
                    where = stack.enter_context(server(asked.database_url, folder))
                row(name, where, n_windows, asked)


def row(name: str, where: str, n_windows: int, asked: argparse.Namespace) -> None:
    """Measure one row in a process of its own."""
    command = [sys.executable, __file__, str(n_windows), "--one", name, where]
    command += ["--dimensions", str(asked.dimensions), "--queries", str(asked.queries)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
