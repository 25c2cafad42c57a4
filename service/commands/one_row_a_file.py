"""Many files -> a table with one row a file: its windows, or what is wrong with it.

It is what each actor of `on_ray.py` does, and knows nothing of Ray. Columns: `file`; `error`, the
reason where the file could not be used, or not to its end; `warnings`; `space_id`; `windows`, each
with `start_s`, `end_s` and its `embedding`, or with `predictions`, `novelty` and `is_novel`; and
`sha256` of the file, where it is to be known again.

Letters: `D` embedding dim, `N` windows, `F` files.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from models.classifier import Classifier
from models.runtime import Encoder
from models.windows import shortened
from service.commands.bulk import Failure, embed_files
from service.commands.guarded import GuardedDecoder
from service.commands.job import Job
from service.commands.labels import Labelled, label_files
from service.commands.tables import Row

FILE = "file"  # the column that tells rows apart


def checked(job: Job) -> str:
    """Open what a job names, before anything is begun with it; returns the space of its vectors.

    Raises:
        ValueError: a file is missing or broken, or they do not fit each other or what is asked.
    """
    encoder = Encoder.open(job.model, threads=1)
    card = encoder.card
    if job.dimensions is not None and job.dimensions > card.embed_dim:
        raise ValueError(f"--dimensions {job.dimensions}: {card.name} has {card.embed_dim}")
    if job.window_s is not None:
        encoder.timeline(job.window_s, job.hop_s)
    if job.head is not None:
        Classifier.open(job.head).check_space(card.space_id, card.name)
    return card.space_id


class FileWorker:
    """Takes tables with a column `file` and gives tables of results, in the same order."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.encoder = Encoder.open(job.model, threads=job.threads)
        self.classifier = None if job.head is None else Classifier.open(job.head)
        self.decoder = GuardedDecoder(digests=job.digests)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A row for each file, whatever is wrong with it."""
        files: list[str] = batch[FILE].to_pylist()
        self.decoder.expect(files)
        errors: dict[str, str] = {}
        warnings: dict[str, list[str]] = defaultdict(list)
        found: dict[str, list[Any]] = defaultdict(list)
        for item in self._items(files, lambda file, sentence: warnings[file].append(sentence)):
            if isinstance(item, Failure):
                errors[item.file] = item.reason
            else:
                found[item.file].append(item)
        windows = self._vectors if self.classifier is None else self._labels
        columns = {
            FILE: pa.array(files, pa.string()),
            "error": pa.array([errors.get(file) for file in files], pa.string()),
            "warnings": pa.array([warnings[file] for file in files], pa.list_(pa.string())),
            "space_id": pa.array([self.encoder.card.space_id] * len(files), pa.string()),
            "windows": _lists(windows, [found[file] for file in files]),
        }
        if self.job.digests:
            columns["sha256"] = pa.array(map(self.decoder.digest, files), pa.string())
        return pa.table(columns)

    def close(self) -> None:
        """End the process that decodes."""
        self.decoder.close()

    def _items(
        self, files: Sequence[str], warn: Callable[[str, str], None]
    ) -> Iterable[Row | Labelled | Failure]:
        job = self.job
        asked: dict[str, Any] = {
            "window_s": job.window_s,
            "hop_s": job.hop_s,
            "selection": job.selection,
            "warn": warn,
            "decode": self.decoder.blocks,
        }
        if self.classifier is None:
            return embed_files(self.encoder, files, **asked)
        return label_files(self.encoder, self.classifier, files, **asked)

    def _vectors(self, rows: Sequence[Row]) -> pa.StructArray:
        n_values = self.job.dimensions or self.encoder.card.embed_dim
        vectors = [shortened(row.embedding, self.job.dimensions) for row in rows]
        flat = np.concatenate(vectors) if vectors else np.zeros(0, np.float32)
        columns = {
            **_times(rows),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), n_values),
        }
        return _struct(columns)

    def _labels(self, rows: Sequence[Labelled]) -> pa.StructArray:
        label = pa.struct([("label", pa.string()), ("score", pa.float32())])
        best = [[vars(one) for one in row.best(self.job.top_k)] for row in rows]
        columns = {
            **_times(rows),
            "predictions": pa.array(best, pa.list_(label)),
            "novelty": pa.array([row.novelty for row in rows], pa.float32()),
            "is_novel": pa.array([row.is_novel for row in rows], pa.bool_()),
        }
        return _struct(columns)


def _times(rows: Sequence[Row] | Sequence[Labelled]) -> dict[str, pa.Array]:
    return {
        "start_s": pa.array([row.start_s for row in rows], pa.float64()),
        "end_s": pa.array([row.end_s for row in rows], pa.float64()),
    }


def _struct(columns: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def _lists(
    windows: Callable[[list[Any]], pa.StructArray], by_file: Sequence[Sequence[Any]]
) -> pa.ListArray:
    """The windows of each file as a list, made as one array of all: F lists of N structs."""
    offsets = np.cumsum([0, *map(len, by_file)], dtype=np.int32)
    together = [item for items in by_file for item in items]
    return pa.ListArray.from_arrays(pa.array(offsets), windows(together))
