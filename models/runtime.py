"""Exact embedding of audio of any length on an ONNX Runtime session.

A recording is cut into tiles that overlap by what a frame of features sees (the halo); the frames
of the tiles are, put together, those of one pass over the whole, and maximum and sum merge across
tiles, so that memory does not grow with the recording. Clips of a like length share a batch.
Batches have one of a fixed set of shapes, so that the runtime's memory does not grow either.
Letters: `S` samples, `T` frames of features, `D` embedding dim, `N` clips or windows.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models import audio, modelfile
from models.audio import MAX_AMPLITUDE, SAMPLE_RATE, AudioError, Limits
from models.modelfile import Card
from models.windows import Pool, WindowPools

Floats = NDArray[np.float32]
Source = Floats | str | Path | bytes | Iterable[Floats]
"""Samples (S,) at 16 kHz, a file's path or bytes, or blocks as `models.audio.stream` gives."""

TILE_S = 10.24  # longest tile, and the audio in one batch
SHORTEST_TILE_S = 0.32
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Windows:
    """Timed vectors of a recording: start and end of each window (N,), vectors (N, D).

    `whole` is the vector of the recording (D,), from the same pass.
    """

    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    embedding: Floats
    whole: Floats


@dataclass(frozen=True)
class _Tile:
    """A part of a clip, and which of its frames the cut does not touch; `stop` None: the rest."""

    samples: Floats
    start: int = 0
    stop: int | None = None


class Encoder:
    """A model file, ready to embed; safe to use from several threads.

    Example:
        `Encoder.open("default.onnx").embed("dog.wav")` is a vector of `card.embed_dim` float32
        values.
    """

    def __init__(self, session: ort.InferenceSession, card: Card) -> None:
        self.card = card
        self._session = session
        hop = card.frame_hop
        # frames at either end of a tile that see beyond the cut
        self._halo_left = math.ceil(-card.frame_offset / hop)
        self._halo_right = math.ceil((card.receptive_field + card.frame_offset - hop) / hop)
        self._tile_frames = round(TILE_S * SAMPLE_RATE / hop)
        self._buckets = _bucket_lengths(
            max(card.min_samples, round(SHORTEST_TILE_S * SAMPLE_RATE)), self._tile_frames * hop
        )

    @classmethod
    def open(cls, path: str | Path, *, threads: int | None = None) -> Self:
        """Open a model file on `threads` threads, on all that this process may use if None.

        Raises:
            ModelFileError: the file is missing, broken or not an encoder.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or available_cpus()
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # patterns are kept for each shape ever seen
        options.log_severity_level = 3
        session, card = modelfile.open_session(path, options)
        return cls(session, card)

    def embed(self, source: Source, limits: Limits = Limits()) -> Floats:
        """One vector of a whole recording: samples (S,), a path or a file's bytes -> (D,).

        Raises:
            AudioError: the recording is empty or cannot be decoded.
        """
        if isinstance(source, np.ndarray) and len(source) <= self._tile_samples:
            embedding: Floats = self.embed_batch([source])[0]
            return embedding
        pool = Pool()
        for frames in self.stream_frames(source, limits):
            pool.add(frames)
        return pool.embedding()

    def embed_batch(self, clips: Sequence[Floats]) -> Floats:
        """One vector a clip, of any mixture of lengths: N times (S,) at 16 kHz -> (N, D)."""
        embeddings = np.empty((len(clips), self.card.embed_dim), np.float32)
        buckets: dict[int, list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            if len(clip) > self._tile_samples:
                embeddings[index] = self.embed(clip)
            else:
                buckets[self._bucket(len(_checked(clip)))].append(index)
        for bucket, indices in buckets.items():
            for group in _groups(indices, self._tile_samples // bucket):
                batch = [clips[index] for index in group]
                embeddings[group] = self._run("embedding", batch, bucket)
        return embeddings

    def frames(self, source: Source, limits: Limits = Limits()) -> Floats:
        """Frame features before pooling, one every `card.frame_hop` samples: -> (T, D)."""
        return np.concatenate(list(self.stream_frames(source, limits)))

    def stream_frames(self, source: Source, limits: Limits = Limits()) -> Iterator[Floats]:
        """`frames` in parts (T, D) of bounded size, as they are computed."""
        for tile in self._tiles(_blocks(source, limits)):
            frames = self._run("frames", [tile.samples], self._bucket(len(tile.samples)))[0]
            n_valid = self._n_frames(len(tile.samples))
            yield frames[tile.start : n_valid if tile.stop is None else tile.stop]

    def windows(
        self,
        source: Source,
        window_s: float,
        hop_s: float | None = None,
        limits: Limits = Limits(),
    ) -> Windows:
        """Timed vectors and the vector of the whole, pooled from the frames of one pass.

        `window_s` and `hop_s` are rounded to whole frames; the times that come back are those used.
        A window sees its surroundings as far as a frame does, and one that spans the recording has
        the recording's vector. A last, shorter window holds what is left where the windows do not
        end with the recording. `hop_s` None: no overlap.

        Raises:
            ValueError: a window or hop that is not above 0, or a hop longer than the window.
            AudioError: the recording is empty or cannot be decoded.
        """
        whole = Pool()
        timed = list(self.stream_windows(source, window_s, hop_s, limits, whole))
        start_s, end_s, embedding = zip(*timed, strict=True)
        return Windows(np.array(start_s), np.array(end_s), np.stack(embedding), whole.embedding())

    def stream_windows(
        self,
        source: Source,
        window_s: float,
        hop_s: float | None = None,
        limits: Limits = Limits(),
        whole: Pool | None = None,
    ) -> Iterator[tuple[float, float, Floats]]:
        """`windows` one by one, as they are complete: start and end in seconds, vector (D,)."""
        window, hop = self._window_frames(window_s, hop_s)
        frame_s = self.card.frame_hop / SAMPLE_RATE
        pools = WindowPools(window, hop)
        for frames in self.stream_frames(source, limits):
            pools.add(frames)
            if whole is not None:
                whole.add(frames)
            for start, stop, pool in pools.finished():
                yield start * frame_s, stop * frame_s, pool.embedding()
        for start, stop, pool in pools.rest():
            yield start * frame_s, stop * frame_s, pool.embedding()

    def self_test(self) -> float:
        """Embed the reference signal: largest relative difference from the golden vector.

        Raises:
            ModelFileError: this machine computes something else than the file says.
        """
        return modelfile.golden_error(self.card, self.embed(modelfile.reference_signal()))

    @property
    def _tile_samples(self) -> int:
        return self._tile_frames * self.card.frame_hop

    def _window_frames(self, window_s: float, hop_s: float | None) -> tuple[int, int]:
        hop_s = window_s if hop_s is None else hop_s
        if not 0 < hop_s <= window_s < math.inf:
            raise ValueError(
                f"window_s={window_s:g}, hop_s={hop_s:g}: expected 0 < hop_s <= window_s"
            )
        frame_s = self.card.frame_hop / SAMPLE_RATE
        return max(1, round(window_s / frame_s)), max(1, round(hop_s / frame_s))

    def _tiles(self, blocks: Iterable[Floats]) -> Iterator[_Tile]:
        """Cut one recording; a tile leaves once more has come, so that the last is no scrap."""
        hop, size = self.card.frame_hop, self._tile_samples
        stride = size - (self._halo_left + self._halo_right) * hop
        held = np.empty(0, np.float32)
        start = 0
        for block in blocks:
            held = np.concatenate([held, block])
            while len(held) > size:
                yield _Tile(held[:size], start, self._tile_frames - self._halo_right)
                start, held = self._halo_left, held[stride:]
        yield _Tile(_checked(held), start)

    def _run(self, output: str, clips: Sequence[Floats], bucket: int) -> Floats:
        """Run clips of at most `bucket` samples as one batch and return one output."""
        waveform = np.zeros((len(clips), bucket), np.float32)
        for row, clip in zip(waveform, clips, strict=True):
            row[: len(clip)] = clip
        length = np.array([len(clip) for clip in clips], np.int64)
        result: Floats = self._session.run([output], {"waveform": waveform, "length": length})[0]
        return result

    def _n_frames(self, n_samples: int) -> int:
        """Frames of features of a clip that is a tile or the end of one."""
        card = self.card
        first = (
            card.receptive_field + 2 * card.frame_offset
        )  # samples that frame 0 needs at the least
        return (max(n_samples, card.min_samples) - first) // card.frame_hop + 1

    def _bucket(self, n_samples: int) -> int:
        return next(size for size in self._buckets if size >= n_samples)


def available_cpus() -> int:
    """CPUs this process may use: affinity, or cgroup quota where that is less; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min(allowed or 1, _cgroup_cpus())))


def _cgroup_cpus() -> float:
    """CPUs that the quota of this process's control groups allows; infinite without one."""
    quotas = [math.inf]
    for group in _cgroups():
        v2, v1 = CGROUPS / group / "cpu.max", CGROUPS / "cpu" / group / "cpu.cfs_quota_us"
        try:
            if v2.is_file():
                quota, period = v2.read_text().split()
            else:
                quota, period = v1.read_text(), v1.with_name("cpu.cfs_period_us").read_text()
            if quota != "max" and int(quota) > 0:
                quotas.append(int(quota) / int(period))
        except (OSError, ValueError):
            continue
    return min(quotas)


def _cgroups() -> Iterator[str]:
    """Control groups of this process and their ancestors, relative to the root, which is "."."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            path = Path(group.lstrip("/"))
            yield from (str(parent) for parent in (path, *path.parents))


def _bucket_lengths(shortest: int, longest: int) -> list[int]:
    """Lengths of batches in samples, four an octave: a clip is padded by a fifth at the most."""
    n = math.ceil(4 * math.log2(longest / shortest))
    return sorted({math.ceil(longest * 2 ** (-step / 4)) for step in range(n + 1)})


def _groups(indices: list[int], most: int) -> Iterator[list[int]]:
    """Batches of powers of two, at most `most`: few shapes, and no row computed in vain."""
    first = 0
    while first < len(indices):
        size = 1 << (min(most, len(indices) - first).bit_length() - 1)
        yield indices[first : first + size]
        first += size


def _blocks(source: Source, limits: Limits) -> Iterable[Floats]:
    """A recording as blocks at 16 kHz."""
    if isinstance(source, str | Path | bytes):
        return audio.stream(source, limits)
    if not isinstance(source, np.ndarray):
        return map(_checked, source)
    samples, step = _checked(source), round(TILE_S * SAMPLE_RATE)
    return (samples[first : first + step] for first in range(0, len(samples), step))


def _checked(samples: Floats) -> Floats:
    """Refuse samples that no embedding can be computed of."""
    if samples.ndim != 1:
        raise AudioError("channels", f"samples of shape {samples.shape}; expected (S,), mono")
    if samples.dtype.kind != "f":
        raise AudioError("unsupported", f"samples are {samples.dtype}; expected floats in [-1, 1]")
    if len(samples) == 0:
        raise AudioError("empty", "the recording holds no samples", limit=1, observed=0)
    peak = np.abs(samples).max()
    if not np.isfinite(peak):
        raise AudioError("non_finite", "the samples are not all finite numbers")
    if peak > MAX_AMPLITUDE:
        message = f"a sample of {peak:g}; at most {MAX_AMPLITUDE:g}, floats are meant in [-1, 1]"
        raise AudioError("amplitude", message, limit=MAX_AMPLITUDE, observed=float(peak))
    return samples
