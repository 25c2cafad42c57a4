"""Vectors in clusters, of which a search looks into the nearest alone: an inverted file of faiss.

k-means on a sample makes the centres; each vector is kept in the cluster of the nearest one, at a
byte a value, under the number of its window. https://github.com/facebookresearch/faiss

A file is what faiss writes, then JSON (`About`, with the SHA-256 of what faiss wrote), then the
length of the JSON.
Letters: `N` windows, `D` embedding dim.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from models.atomic import replacing
from models.windows import unit
from service.collections.records import Floats, Integers, Vectors

CENTRES = 1.5  # times the square root of the number of windows
POINTS = 25  # of each centre, that it is made of
ROUNDS = 8  # of k-means
SHARE, LEAST_PROBES = 1 / 20, 16  # of the clusters that are looked into at first, and how many
TAIL_BYTES = 8  # the length of the JSON
READ_BYTES = 1 << 20


class Damaged(Exception):
    """A file that is not what was written."""


@dataclass(frozen=True)
class About:
    """Which windows a file holds: `n` of a collection, up to the number `last`."""

    collection: int
    space_id: str
    dimensions: int
    last: int
    n: int
    sha256: str = ""


@dataclass(frozen=True)
class Clustered:
    """Some windows in clusters; safe to search from several threads, and never changed."""

    index: Any
    about: About

    @classmethod
    def of(cls, sample: Floats, parts: Iterable[Vectors], about: About) -> Self:
        """Put all windows of `parts` into clusters that are made of a sample (N, D)."""
        import faiss

        faiss.omp_set_num_threads(1)  # beside a service that computes on all cores
        n_centres = max(1, min(len(sample), round(CENTRES * np.sqrt(max(1, about.n)))))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(about.dimensions),
            about.dimensions,
            n_centres,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
            False,  # the vectors themselves, not what lies between them and the centre
        )
        index.cp.niter, index.cp.min_points_per_centroid = ROUNDS, 1
        index.cp.max_points_per_centroid = 2 * POINTS
        index.train(unit(sample))
        last, n = 0, 0
        for part in parts:
            index.add_with_ids(unit(part.vectors), part.windows)
            last, n = int(part.windows[-1]), n + len(part)
        whole = About(about.collection, about.space_id, about.dimensions, last, n)
        return cls(index, whole)

    @property
    def n_bytes(self) -> int:
        """About how much memory it takes."""
        return self.about.n * (self.about.dimensions + 8)

    def nearest(self, direction: Floats, n: int, effort: int = 1) -> Integers:
        """Numbers of about `n` windows that come closest; more effort looks into more clusters."""
        import faiss

        probes = effort * max(LEAST_PROBES, round(SHARE * self.index.nlist))
        asked = faiss.SearchParametersIVF()
        asked.nprobe = min(probes, self.index.nlist)
        _, found = self.index.search(direction[None], n, params=asked)
        numbers: Integers = found[0][found[0] >= 0]
        return numbers

    def write(self, path: Path) -> None:
        """Write it whole, or not at all."""
        import faiss

        with replacing(path) as temporary:
            faiss.write_index(self.index, os.fspath(temporary))
            with temporary.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            about = json.dumps(asdict(self.about) | {"sha256": digest}).encode()
            with temporary.open("ab") as file:
                file.write(about + len(about).to_bytes(TAIL_BYTES, "big"))


def about_file(path: Path) -> About:
    """Which windows a file holds, by its own words.

    Raises:
        Damaged: it does not say so.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _about(file)[0]


def read(path: Path) -> Clustered:
    """Read a file that is as it was written.

    Raises:
        Damaged: it is not.
        OSError: it cannot be read.
    """
    import faiss

    with path.open("rb") as file:
        about, n_bytes = _about(file)
        file.seek(0)
        digest = hashlib.sha256()
        while n_bytes and (part := file.read(min(READ_BYTES, n_bytes))):
            digest.update(part)
            n_bytes -= len(part)
    if digest.hexdigest() != about.sha256:
        raise Damaged(f"{path} is not what was written")
    try:
        index = faiss.read_index(os.fspath(path))
    except RuntimeError as error:
        raise Damaged(f"{path} is of another version of faiss") from error
    return Clustered(index, about)


def _about(file: BinaryIO) -> tuple[About, int]:
    """The JSON at the end of a file, and how many bytes come before it."""
    size = os.fstat(file.fileno()).st_size
    try:
        file.seek(size - TAIL_BYTES)
        length = int.from_bytes(file.read(TAIL_BYTES), "big")
        file.seek(size - TAIL_BYTES - length)
        about = About(**json.loads(file.read(length)))
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise Damaged(f"{file.name} does not say what it is of") from error
    return about, size - TAIL_BYTES - length
