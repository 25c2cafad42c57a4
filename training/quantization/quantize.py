"""A model file -> the same encoder with its heavy layers in eight bits, checked before it is kept.

Integer sums are exact, so that threads, batch sizes and processors change no vector by themselves.
What comes before the first rounding is float and may differ in its last bit; where that falls on
the border between two steps, an activation moves by one of 255. Letters: `D` embedding dim.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from models import shipped
from models.card import Card, Golden, Quantization
from models.modelfile import open_session, reference_signal, write
from models.runtime import Encoder
from training.quantization.calibration import Clip, draw, measure
from training.quantization.graph import WEIGHT_BITS, Layer, heavy_layers, rounded, tensors

Floats = NDArray[np.float32]
Follow = Callable[[Sequence[Clip], str], Iterable[Clip]]
"""Gives the clips of a stage one by one and shows how far it is."""

LEAST_COSINE = 0.999
HELD_OUT = 4  # one clip in so many is not calibrated on, and checks


class QuantizationError(ValueError):
    """An encoder that cannot be quantised, or whose vectors change too much by it."""


def quantize(
    model: Path,
    audio: Sequence[Path],
    out: Path,
    *,
    n_clips: int = 512,
    seed: int = 0,
    weight_bits: int = WEIGHT_BITS,
    least_cosine: float = LEAST_COSINE,
    probes: dict[str, float] | None = None,
    follow: Follow = lambda clips, stage: clips,
) -> Card:
    """Write the encoder `model` as `out` with its heavy layers in eight bits.

    Args:
        model: a file of an encoder in float32, or the name of one that ships.
        audio: a store, or folders and tars of audio like that to be embedded.
        out: the new model file.
        n_clips: clips to draw; three of four give the ranges, the others check the vectors.
        seed: of the draw.
        weight_bits: 7, or 8 for processors with VNNI alone.
        least_cosine: between a clip's vectors before and after, below which nothing is written.
        probes: accuracy by downstream task, for the card.
        follow: shows the progress.

    Raises:
        QuantizationError: for a file that is quantised already, too few clips, or too low a cosine.
        CorpusError: for audio that cannot be read.
        ModelFileError: for a file that is no encoder.
    """
    model = shipped.find(model)
    _, card = open_session(model)
    if card.quantization is not None:
        raise QuantizationError(
            f"{model} was quantised from {card.quantization.of}; quantise that file instead"
        )
    proto = onnx.load(model)
    layers = heavy_layers(proto.graph)
    if not layers:
        raise QuantizationError(f"{model} has no layer that is worth eight bits")
    clips = draw(audio, n_clips, np.random.default_rng(seed))
    checking, calibrating = clips[::HELD_OUT], [c for i, c in enumerate(clips) if i % HELD_OUT]
    if not calibrating:
        raise QuantizationError(
            f"{len(clips)} clips were found; at least 2 are needed, some hundreds make sense"
        )

    seen = follow(calibrating, "calibrating")
    ranges = measure(proto, tensors(layers), (clip.samples for clip in seen))
    quantized, numbers = rounded(proto, layers, ranges, weight_bits)
    encoder = Encoder(_session(quantized), card)
    cosines = _cosines(Encoder.open(model), encoder, follow(checking, "checking"))
    if not cosines.min() >= least_cosine:  # also when it is not a number
        raise QuantizationError(
            f"the vectors of a held-out clip before and after have a cosine of "
            f"{cosines.min():.5f}; at least {least_cosine:g} is asked for. Calibrate on more clips "
            "or on audio more like yours, or lower --least-cosine"
        )
    quantization = Quantization(
        of=card.name,
        space_id=card.space_id,
        weight_bits=weight_bits,
        layers=[_described(layer) for layer in layers],
        clips=len(calibrating),
        seconds=sum(len(clip.samples) for clip in calibrating) / card.sample_rate,
        sources=dict(Counter(clip.source for clip in calibrating)),
        seed=seed,
        held_out=len(checking),
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
    )
    changes = {
        "name": out.stem,
        "space_id": _space_id(card, layers, numbers),
        "probes": probes or {},
        "golden": Golden.of(encoder.embed(reference_signal())),
        "quantization": quantization,
    }
    card = card.model_copy(update=changes)
    write(quantized, card, out)
    return card


def _session(proto: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def _cosines(before: Encoder, after: Encoder, clips: Iterable[Clip]) -> NDArray[np.float64]:
    """Cosine of each clip's two vectors."""

    def each() -> Iterator[float]:
        for clip in clips:
            one, other = (e.embed(clip.samples).astype(np.float64) for e in (before, after))
            yield float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))

    return np.fromiter(each(), np.float64)


def _space_id(card: Card, layers: Sequence[Layer], numbers: Sequence[NDArray[Any]]) -> str:
    """Hash of what determines a vector: the space before, and what the rounded layers compute."""
    settings = {"space_id": card.space_id, "layers": [_described(layer) for layer in layers]}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for values in numbers:
        digest.update(f"{values.dtype.name}{values.shape}".encode())
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return f"va1-{digest.hexdigest()[:16]}"


def _described(layer: Layer) -> str:
    return f"{layer.operator} {'x'.join(map(str, layer.shape))}"
