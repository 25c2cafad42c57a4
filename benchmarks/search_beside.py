"""Search in a collection beside Qdrant in its local mode and perch-hoplite, on the same vectors.

    python -m venv /tmp/others && /tmp/others/bin/pip install qdrant-client perch-hoplite
    python benchmarks/search_beside.py 20000 --python /tmp/others/bin/python

The others have an environment of their own, whose Python is named. The vectors are those of
`search_scale.py`, ten to a recording. Each store is filled and searched in a process of its own, in
turn; it prints its row when it has it. recall@10 is against all products in NumPy. Qdrant's local
mode compares with every vector, and says itself that it is not meant for large collections: its
server is another program, and is not measured. Hoplite is searched by its graph, as it does.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

OURS, OTHERS = ("viola, exact", "viola, approximate"), ("qdrant, local", "hoplite")
COLUMNS = ("vectors", "store", "added a second", "p50", "p99", "recall@10", "memory", "disk")
WINDOWS = 10  # of a recording
BATCH = 500
TOP = 10

Search = Callable[[np.ndarray], list[int]]
"""The places of the ten nearest vectors among those that were added."""


def viola(folder: Path, vectors: np.ndarray, *, exact: bool) -> tuple[float, Search, Any]:
    from benchmarks.search_scale import NOBODY, opened
    from service.collections.records import NewItem, Quota, Terms

    context = opened("exact", str(folder))
    store = context.__enter__()
    terms = Terms("made", "made-space", vectors.shape[1], 5.0, 5.0)
    collection, _ = store.collections.put("", "beside", terms, Quota())
    started = time.perf_counter()
    for first in range(0, len(vectors), BATCH):
        items = []
        for place in range(first, min(first + BATCH, len(vectors)), WINDOWS):
            rows = vectors[place : place + WINDOWS]
            start_s = 5.0 * np.arange(len(rows))
            digest = f"{place:064x}"
            items.append(NewItem(digest, start_s, start_s + 5, rows, 50.0, str(place)))
        store.items.add(collection, items, Quota())
    took_s = time.perf_counter() - started
    if not exact:
        store.index.prepare(store.collections.get("", "beside"))
    collection = store.collections.get("", "beside")
    first_key = int(store.windows.all(collection).windows.min())

    def search(query: np.ndarray) -> list[int]:
        found = store.index.nearest(collection, query, TOP, without=NOBODY, exact=exact)
        return [int(key) - first_key for key in found.windows]

    return took_s, search, context


def qdrant(folder: Path, vectors: np.ndarray) -> tuple[float, Search, Any]:
    import warnings

    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams

    warnings.filterwarnings("ignore", message="Local mode")
    client = QdrantClient(path=str(folder / "qdrant"))
    params = VectorParams(size=vectors.shape[1], distance=Distance.COSINE)
    client.create_collection("beside", vectors_config=params)
    started = time.perf_counter()
    for first in range(0, len(vectors), BATCH):
        rows = enumerate(vectors[first : first + BATCH].tolist(), first)
        client.upsert("beside", [PointStruct(id=place, vector=row) for place, row in rows])
    took_s = time.perf_counter() - started

    def search(query: np.ndarray) -> list[int]:
        found = client.query_points("beside", query=query.tolist(), limit=TOP)
        return [int(point.id) for point in found.points]

    return took_s, search, client


def hoplite(folder: Path, vectors: np.ndarray) -> tuple[float, Search, Any]:
    from perch_hoplite.db import sqlite_usearch_impl as hoplite

    config = hoplite.get_default_usearch_config(vectors.shape[1])
    (folder / "hoplite").mkdir()
    db = hoplite.SQLiteUSearchDB.create(str(folder / "hoplite"), config)
    started, keys = time.perf_counter(), []
    for first in range(0, len(vectors), WINDOWS):
        recording = db.insert_recording(filename=f"{first}.wav")
        rows = vectors[first : first + WINDOWS]
        windows = [
            {"recording_id": recording, "offsets": [5.0 * n, 5.0 * n + 5]} for n in range(len(rows))
        ]
        keys += db.insert_windows_batch(windows, rows)
        if first % BATCH == 0:
            db.commit()
    db.commit()
    took_s = time.perf_counter() - started
    place = {int(key): n for n, key in enumerate(keys)}

    def search(query: np.ndarray) -> list[int]:
        return [place[int(found.window_id)] for found in db.search(query, TOP)]

    return took_s, search, db


def measure(name: str, folder: Path) -> None:
    """Print the row of one store."""
    vectors, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
    truth = np.load(folder / "truth.npy")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(dir=folder) as place:
        where = Path(place)
        if name in OURS:
            took_s, search, held = viola(where, vectors, exact=name == OURS[0])
        else:
            took_s, search, held = {OTHERS[0]: qdrant, OTHERS[1]: hoplite}[name](where, vectors)
        search(queries[0])
        times, found = [], []
        for query in queries:
            started = time.perf_counter()
            found.append(search(query))
            times.append(1000 * (time.perf_counter() - started))
        n_bytes = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
        del held
    hits = sum(len(set(a) & set(b)) for a, b in zip(found, truth.tolist(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    p50, p99 = np.percentile(times, [50, 99])
    row = (
        f"{len(vectors):,}",
        name,
        f"{len(vectors) / took_s:,.0f}",
        f"{p50:.2f} ms",
        f"{p99:.2f} ms",
        f"{hits / truth.size:.3f}",
        f"{peak / 1024:,.0f} MB",
        f"{n_bytes / 2**20:,.0f} MB",
    )
    print("| " + " | ".join(row) + " |", flush=True)


def make(folder: Path, n: int, dimensions: int, n_queries: int) -> None:
    """Write the vectors, the queries, and the places of the ten nearest."""
    from benchmarks.search_scale import Made

    vectors = Made(dimensions).vectors(n)
    queries = Made(dimensions, 1).vectors(n_queries)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :TOP]
    for name, array in (("vectors", vectors), ("queries", queries), ("truth", truth)):
        np.save(folder / f"{name}.npy", array)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", nargs="*", type=int, default=[20_000])
    parser.add_argument("--python", help="of the environment of the others; else they are left out")
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        measure(asked.one[0], Path(asked.one[1]))
        return
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    for n in asked.vectors:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), n, asked.dimensions, asked.queries)
            for name in (*OURS, *(OTHERS if asked.python else ())):
                python = sys.executable if name in OURS else asked.python
                subprocess.run([python, __file__, "--one", name, folder], check=True)


if __name__ == "__main__":
    main()
