"""Clips to calibrate on, and the range of an encoder's activations over them. `S` samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models import pcm
from models.audio import SAMPLE_RATE
from models.labelled.clips import decode
from models.sources import Item
from models.tiles import TILE_S
from training.data.corpus import Corpus, CorpusError, index_paths
from training.data.sources import list_sources
from training.quantization.graph import Range

Floats = NDArray[np.float32]
LONGEST = round(TILE_S * SAMPLE_RATE)  # samples; what is longer is served in tiles of this length


@dataclass(frozen=True)
class Clip:
    """Samples (S,) at 16 kHz, and the source that they come from."""

    source: str
    samples: Floats


def draw(paths: Sequence[Path], n_clips: int, rng: np.random.Generator) -> list[Clip]:
    """Clips of a store, or of folders and tars of audio: sources in turn, so that none drowns.

    Of a clip that is longer than a tile a random part is taken. Files that cannot be decoded are
    passed over.

    Raises:
        CorpusError: a source that cannot be read, a store beside others.
    """
    stores = [path for path in paths if path.is_dir() and index_paths(path)]
    if stores and len(paths) > 1:
        raise CorpusError(f"{stores[0]} is a store; name it alone, or folders and tars")
    clips = _of_store(stores[0], rng) if stores else _of_files(paths, rng)
    return list(islice(clips, n_clips))


def measure(
    proto: onnx.ModelProto, names: Sequence[str], clips: Iterator[Floats]
) -> dict[str, Range]:
    """The range of each of these tensors of a graph over clips (S,)."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges = {name: Range(0.0, 0.0) for name in names}
    for clip in clips:
        inputs = {"waveform": clip[None], "length": np.array([len(clip)], np.int64)}
        for name, values in zip(names, session.run(list(names), inputs), strict=True):
            low, high = ranges[name]
            ranges[name] = Range(min(low, float(values.min())), max(high, float(values.max())))
    return ranges


def _of_store(store: Path, rng: np.random.Generator) -> Iterator[Clip]:
    corpus = Corpus(store)
    for clip in _in_turn(corpus.source_of, rng):
        n_samples = min(int(corpus.lengths[clip]), LONGEST)
        segment = corpus.segments(np.array([clip]), n_samples, rng, "end")[0]
        yield Clip(corpus.sources[corpus.source_of[clip]], pcm.samples(segment))


def _of_files(paths: Sequence[Path], rng: np.random.Generator) -> Iterator[Clip]:
    items: list[Item] = []
    for source in list_sources(paths):
        items += source.items()
    codes = {name: code for code, name in enumerate(dict.fromkeys(item.source for item in items))}
    order = _in_turn(np.array([codes[item.source] for item in items]), rng)
    chosen = [items[index] for index in order]
    for index, samples in decode(chosen):
        if isinstance(samples, str) or not len(samples):
            continue
        start = rng.integers(0, max(len(samples) - LONGEST, 0) + 1)
        yield Clip(chosen[index].source, samples[start : start + LONGEST])


def _in_turn(source_of: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int64]:
    """All clips (N,): the first of every source in random order, the second of every source, ..."""
    shuffled = rng.permutation(len(source_of))
    seen: dict[int, int] = {}
    turns = np.empty(len(shuffled), np.int64)
    for place, clip in enumerate(shuffled):
        source = int(source_of[clip])
        turns[place] = seen[source] = seen.get(source, -1) + 1
    return shuffled[np.argsort(turns, kind="stable")]
