"""Tables with a row a file, as Ray's workers write them, into a collection: `viola index --ray`.

A file is known again by its SHA-256, so that adding may be stopped and done again.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.atomic import replacing
from service.collections.records import Collection, NewItem
from service.collections.store import Store
from service.commands.bulk import Failure
from service.commands.bulk_run import work
from service.commands.indexing import COMMIT_ITEMS, UNBOUNDED, item_of, vectors_digest
from service.commands.job import Job
from service.commands.run_folder import Progress
from service.commands.tables import TableError


@dataclass
class Added:
    """What became of the files of a table."""

    new: int = 0
    known: int = 0
    failures: list[Failure] = field(default_factory=list)


def index_on_ray(
    store: Store, collection: Collection, job: Job, files: list[str], address: str
) -> Added:
    """Embed files on Ray and add them to a collection; run again, it goes on.

    Its progress is in a folder of the one that the command runs in.

    Raises:
        TableError, SourceError, RunStopped: it cannot be begun, gone on with, or finished.
        StoreError: the disk is full, or others write.
    """
    owner = f"{collection.owner}-" if collection.owner else ""
    progress = Progress(Path.cwd() / f"index-{owner}{collection.name}")
    with progress.alone():
        work(job, files, progress, address)
        added = add_rows(store, collection, progress.batches())
        progress.forget()
    return added


def add_rows(store: Store, collection: Collection, batches: Iterable[pa.RecordBatch]) -> Added:
    """Add the recordings of some tables: each row that has no error, unless its file is known.

    Raises:
        TableError: the vectors are of another space, or of another length.
    """
    added = Added()
    held: list[NewItem] = []
    for batch in batches:
        for item in _items(batch, collection):
            if isinstance(item, Failure):
                added.failures.append(item)
            else:
                held.append(item)
            if len(held) == COMMIT_ITEMS:
                _commit(store, collection, held, added)
    _commit(store, collection, held, added)
    return added


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """A JSON object a line: the file, and why it is not in the collection."""
    with replacing(path) as temporary:
        lines = (json.dumps({"file": one.file, "reason": one.reason}) + "\n" for one in failures)
        temporary.write_text("".join(lines), "utf-8")


def _items(batch: pa.RecordBatch, collection: Collection) -> Iterator[NewItem | Failure]:
    terms = collection.terms
    windows = batch["windows"]
    offsets = windows.offsets.to_numpy()
    columns = dict(zip(windows.values.type.names, windows.values.flatten(), strict=True))
    vectors = columns["embedding"].flatten().to_numpy(zero_copy_only=False)
    n_windows = len(columns["start_s"])
    if len(vectors) != n_windows * terms.dimensions:
        raise TableError(
            f"the vectors have {len(vectors) // n_windows} values; the collection "
            f"{collection.name} expects {terms.dimensions}"
        )
    vectors = vectors.reshape(n_windows, terms.dimensions).astype(np.float32)
    start_s, end_s = (columns[name].to_numpy() for name in ("start_s", "end_s"))
    digests: list[Any] = [None] * len(batch)
    if "sha256" in batch.schema.names:
        digests = batch["sha256"].to_pylist()
    names = ("file", "error", "space_id")
    rows = zip(*(batch[name].to_pylist() for name in names), digests, strict=True)
    for number, (file, error, space_id, digest) in enumerate(rows):
        if error is not None:
            yield Failure(file, error)
            continue
        if space_id != terms.space_id:
            raise TableError(
                f"{file} has vectors of space {space_id}; the collection {collection.name} is of "
                f"space {terms.space_id}"
            )
        own = slice(offsets[number], offsets[number + 1])
        parts = vectors[own], start_s[own], end_s[own]
        yield item_of(file, digest or vectors_digest(file, *parts), *parts)


def _commit(store: Store, collection: Collection, held: list[NewItem], added: Added) -> None:
    outcomes = store.items.add(collection, held, UNBOUNDED) if held else []
    n_new = sum(outcome.is_new for outcome in outcomes)
    added.new, added.known = added.new + n_new, added.known + len(held) - n_new
    held.clear()
