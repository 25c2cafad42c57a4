"""A store of 16 kHz PCM on disk -> random segments of its clips, for each step of a run.

A store, written by `training.data.prepare`, holds shards. `shard-00000.pcm` is raw little-endian
int16 at 16 kHz, mono, its clips back to back; `shard-00000.parquet` has a row for each clip. The
parquet file is renamed into place last: what has none does not exist. Beside them `errors.jsonl`
lists the files that could not be decoded, `warnings.jsonl` what was noticed about those that could,
and `duplicates.jsonl` those whose content another clip has.

Shapes: B batch, S samples.
"""

import hashlib
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("name", pa.string()),
        ("offset", pa.int64()),  # samples
        ("length", pa.int64()),  # samples
        ("sha256", pa.binary(32)),  # of the clip's PCM
    ]
)

PARTS_NAME = "parts"  # folder of the parts of a store (`training.data.parts`)
MERGING_NAME = "merging"  # the same, once their merging has begun

REMEDY = (
    "restore the shard's .pcm and .parquet files, or remove both and run `viola prepare` again "
    "with the same sources"
)


class CorpusError(ValueError):
    """A source or a store that cannot be used."""


def index_paths(store: Path) -> list[Path]:
    """The index of every shard of `store`, in order; a number that is missing is refused."""
    paths = sorted(store.glob("shard-*.parquet"))
    for number, path in enumerate(paths):
        if path.name != f"shard-{number:05d}.parquet":
            raise CorpusError(f"{store} lacks shard {number:05d}; {REMEDY}")
    return paths


def refuse_merging(store: Path) -> None:
    """Refuse a store whose parts are being merged, or were until something stopped it.

    Raises:
        CorpusError: it is so.
    """
    if (store / MERGING_NAME).exists():
        raise CorpusError(
            f"the parts of {store} are being merged; `viola prepare --merge {store}` goes on where "
            "it was stopped"
        )


def nothing_in(store: Path) -> str:
    """Why a store without shards is refused."""
    if (store / PARTS_NAME).exists():
        return f"{store} holds parts of a store; `viola prepare --merge {store}` makes one of them"
    return f"{store} is no store, or an empty one; run `viola prepare` first"


def read_index(path: Path, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
    """The clips of a shard: a row each, with these columns of `SCHEMA`."""
    try:
        with pq.ParquetFile(path) as file:
            schema, table = file.schema_arrow, file.read(columns)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path} cannot be read; {REMEDY}") from error
    if schema != SCHEMA:
        raise CorpusError(f"{path} is no index of a store: its columns are {schema.names}")
    return table


@dataclass(frozen=True)
class Crops:
    """What a batch takes of a store, and where it lies in its segments: (B,) int64 each.

    Attributes:
        start: first sample taken, counted through all shards in order.
        kept: samples taken.
        lead: zeros in front of them; what is left of a segment behind them is zero too.
    """

    start: NDArray[np.int64]
    kept: NDArray[np.int64]
    lead: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice) -> "Crops":
        return Crops(self.start[rows], self.kept[rows], self.lead[rows])


class Corpus:
    """A store opened for reading; safe to share between threads.

    Of the index the sources, lengths and places stay in memory: 20 bytes a clip.

    Attributes:
        folder: the store.
        n_clips: clips in all shards.
        n_samples: their samples.
        hours: their length.
        sources: names of the sources, in the order of their first clip.
        source_of: (n_clips,) int32, the source of each clip as an index into `sources`.
        lengths: (n_clips,) int64, samples.
        fingerprint: hex digest of every clip's source, name, length and PCM digest, in order.

    Raises:
        CorpusError: for a folder that is no store, or a store that is damaged.
    """

    def __init__(self, store: Path) -> None:
        self.folder = store
        refuse_merging(store)
        paths = index_paths(store)
        if not paths:
            raise CorpusError(nothing_in(store))
        fingerprint = _Fingerprint()
        codes: dict[str, int] = {}
        lengths: list[NDArray[np.int64]] = []
        source_of: list[NDArray[np.int32]] = []
        n_samples: list[int] = []  # of each shard
        for path in paths:
            index = read_index(path)
            fingerprint.update(index)
            source_of.append(encode(index["source"], codes))
            lengths.append(clip_lengths(index, path))
            n_samples.append(int(lengths[-1].sum()))
        self.lengths = np.concatenate(lengths)
        self.source_of = np.concatenate(source_of)
        self.sources = tuple(codes)
        self.fingerprint = fingerprint.hexdigest()
        self.n_clips = len(self.lengths)
        self.n_samples = int(self.lengths.sum())
        self.hours = self.n_samples / SAMPLE_RATE / 3600
        self._firsts = np.cumsum(self.lengths) - self.lengths
        self._shard_firsts = np.cumsum(n_samples) - n_samples
        self._pcm = [path.with_suffix(".pcm") for path in paths]
        self._files: list[int] = []  # descriptors
        weakref.finalize(self, _close, self._files)
        for path, length in zip(self._pcm, n_samples, strict=True):
            self._files.append(_open_pcm(path, length))

    @property
    def shards(self) -> tuple[NDArray[np.int16], ...]:
        """PCM of each shard, mapped read-only; clips follow one another through all of them."""
        return tuple(map(_map_pcm, self._pcm))

    def crops(
        self,
        clips: NDArray[np.int64],
        n_samples: int,
        rng: np.random.Generator,
        pad: Literal["end", "both"],
    ) -> Crops:
        """Draw a segment of `n_samples` of each clip: (B,) clip numbers -> (B,) crops.

        Longer clips give a uniformly random crop, shorter ones are padded with zeros: at the end
        (BYOL-A v2) or half on both sides (v1).
        """
        lengths = self.lengths[clips]
        start = self._firsts[clips] + rng.integers(0, np.maximum(lengths - n_samples, 0) + 1)
        kept = np.minimum(lengths, n_samples)
        lead = (n_samples - kept) // 2 if pad == "both" else np.zeros_like(kept)
        return Crops(start, kept, lead)

    def gather(self, crops: Crops, out: NDArray[np.int16]) -> None:
        """Fill all of `out`, (B, S), with the segments that `crops` describes, zeros included."""
        out[crops.kept < out.shape[1]] = 0
        shards = np.searchsorted(self._shard_firsts, crops.start, side="right") - 1
        starts = 2 * (crops.start - self._shard_firsts[shards])  # bytes
        # Reads, not maps: a disk gives a segment in one go instead of page by page, three times
        # faster; what is in memory already comes as fast.
        columns = (column.tolist() for column in (shards, starts, crops.kept, crops.lead))
        for segment, shard, start, kept, lead in zip(out, *columns, strict=True):
            n_bytes = os.preadv(self._files[shard], [segment[lead : lead + kept].data], start)
            if n_bytes != 2 * kept:
                raise CorpusError(f"{self._pcm[shard]} was cut while it was open; {REMEDY}")

    def segments(
        self,
        clips: NDArray[np.int64],
        n_samples: int,
        rng: np.random.Generator,
        pad: Literal["end", "both"],
    ) -> NDArray[np.int16]:
        """Draw and cut a segment of each clip: (B,) clip numbers -> (B, S). See `crops`."""
        segments = np.empty((len(clips), n_samples), np.int16)
        self.gather(self.crops(clips, n_samples, rng, pad), segments)
        return segments


def clip_lengths(index: pa.Table, path: Path) -> NDArray[np.int64]:
    """Samples of each clip of the index at `path`, whose clips have to lie back to back."""
    lengths: NDArray[np.int64] = index["length"].to_numpy()
    if (lengths < 1).any() or (index["offset"].to_numpy() != np.cumsum(lengths) - lengths).any():
        raise CorpusError(f"{path} is damaged, its clips overlap or are empty; {REMEDY}")
    return lengths


def encode(sources: pa.ChunkedArray, codes: dict[str, int]) -> NDArray[np.int32]:
    """Each clip's source as its number in `codes`, which gains those that are new."""
    column = sources.combine_chunks().dictionary_encode()
    numbers = [codes.setdefault(name, len(codes)) for name in column.dictionary.to_pylist()]
    indices: NDArray[np.int32] = column.indices.to_numpy()
    return np.array(numbers, np.int32)[indices]


def clip_digests(index: pa.Table) -> NDArray[np.uint8]:
    """SHA-256 of the PCM of each clip: (rows, 32)."""
    column = index["sha256"].combine_chunks()
    rows = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, 32)
    return rows[column.offset :][: len(column)]


class _Fingerprint:
    """A digest of all clips: column by column, so that shards may end anywhere."""

    def __init__(self) -> None:
        self._columns = [hashlib.sha256() for _ in range(6)]

    def update(self, index: pa.Table) -> None:
        """Add the clips of a shard."""
        parts = (
            *text_columns(index["source"]),
            *text_columns(index["name"]),
            index["length"].to_numpy(),
            clip_digests(index),
        )
        for digest, part in zip(self._columns, parts, strict=True):
            digest.update(np.ascontiguousarray(part).data)

    def hexdigest(self) -> str:
        """The digest of the clips so far."""
        return hashlib.sha256(b"".join(digest.digest() for digest in self._columns)).hexdigest()


def text_columns(strings: pa.ChunkedArray) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """The length of each string, and the bytes of all of them."""
    column = strings.combine_chunks()
    _, offsets, content = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset :][: len(column) + 1]
    return np.diff(ends), np.frombuffer(content, np.uint8)[ends[0] : ends[-1]]


def _open_pcm(path: Path, n_samples: int) -> int:
    """Open a shard's PCM, which has to be as long as its clips together."""
    found = path.stat().st_size if path.exists() else None
    if found != 2 * n_samples:
        held = "is missing" if found is None else f"holds {found} bytes"
        raise CorpusError(f"{path} {held}, its index tells of {2 * n_samples}; {REMEDY}")
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        message = f"{path} cannot be opened: {error.strerror}; each shard needs an open file"
        raise CorpusError(f"{message}, `ulimit -n` raises their number") from error


def _map_pcm(path: Path) -> NDArray[np.int16]:
    # Arrow's maps outlive their file; those of NumPy would keep it open
    with pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), "<i2")


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


class Sampler:
    """Which clips a step sees: a function of the seed and the step alone, so that runs resume.

    Without weights every clip is drawn once an epoch: the shuffled epochs form one endless stream,
    and a step takes its part of it. With weights, a balance below 1 or a power of the length above
    0, clips are drawn with replacement.

    Args:
        corpus: what to draw from.
        weights: factor for each clip of a source; sources that are not named have 1.
        seed: non-negative.
        balance: a source of n clips has n ** balance of the draws: 1 as many as it has clips, 0 as
            many as any other.
        length_power: a clip of n segments' length counts as n ** length_power clips.
        segment_samples: length of a segment.

    Attributes:
        epoch_segments: segments of an epoch, one for each clip as it counts.

    Raises:
        CorpusError: for unknown sources, negative or non-finite factors, or none above zero.
    """

    def __init__(
        self,
        corpus: Corpus,
        weights: Mapping[str, float],
        seed: int,
        balance: float = 1.0,
        length_power: float = 0.0,
        segment_samples: int = 1,
    ) -> None:
        self.seed = seed
        self.n_clips = corpus.n_clips
        counts = np.maximum(corpus.lengths / segment_samples, 1) ** length_power
        self.epoch_segments = float(counts.sum())
        self._cumulative: NDArray[np.float64] | None = None
        if weights or balance < 1 or length_power > 0:
            self._cumulative = _cumulative(corpus, counts, weights, balance)

    def batch(self, step: int, batch_size: int) -> tuple[NDArray[np.int64], np.random.Generator]:
        """Clip numbers (B,) of a step, and the generator for its crops."""
        rng = np.random.default_rng([self.seed, 1, step])
        if self._cumulative is not None:
            drawn = np.searchsorted(self._cumulative, rng.random(batch_size), side="right")
            return drawn.astype(np.int64), rng
        first, end = step * batch_size, (step + 1) * batch_size
        parts = []
        for epoch in range(first // self.n_clips, (end - 1) // self.n_clips + 1):
            start = epoch * self.n_clips
            order = _permutation(self.n_clips, self.seed, epoch)
            parts.append(order[max(first - start, 0) : end - start])
        return np.concatenate(parts), rng


def _cumulative(
    corpus: Corpus, counts: NDArray[np.float64], weights: Mapping[str, float], balance: float
) -> NDArray[np.float64]:
    """Cumulative chance of the clips, each of which counts as so many; it ends at exactly 1."""
    unknown = sorted(set(weights) - set(corpus.sources))
    if unknown:
        known = ", ".join(corpus.sources)
        raise CorpusError(f"no source is called {', '.join(unknown)}; the store holds {known}")
    factors = np.array([weights.get(source, 1.0) for source in corpus.sources])
    if not (np.isfinite(factors).all() and (factors >= 0).all() and factors.any()):
        raise CorpusError(f"weights are finite, not negative and not all zero; got {weights}")
    factors *= np.bincount(corpus.source_of, counts) ** (balance - 1.0)
    chances: NDArray[np.float64] = np.cumsum(factors[corpus.source_of] * counts)
    chances /= chances[-1]
    return chances


@lru_cache(maxsize=4)
def _permutation(n_clips: int, seed: int, epoch: int) -> NDArray[np.int64]:
    permutation = np.random.default_rng([seed, 0, epoch]).permutation(n_clips)
    permutation.setflags(write=False)  # it is shared by the cache
    return permutation
