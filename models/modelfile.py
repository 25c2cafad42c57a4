"""The model file: an ONNX graph whose metadata holds a card; opened, verified and written here.

The card travels as JSON under one metadata key, so that the file alone says what it computes, on
what it was trained, and how any machine can prove that it computes the same. There are two kinds:
encoders, whose card is in `models.card`, and classifiers, whose card is in `models.classifier`.
Letters: `S` samples, `D` embedding dim.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from models.atomic import replacing
from models.audio import SAMPLE_RATE
from models.card import CARD_SCHEMA, Card, Part

Provider = str | tuple[str, dict[str, str]]
"""An execution provider of ONNX Runtime by its name, with options or without."""

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT_MODEL = PRETRAINED / "default.onnx"
DEFAULT_CLASSIFIER = PRETRAINED / "sound-kinds.onnx"
CARD_KEY = "viola.card"
GOLDEN_TOLERANCE = (
    1e-3  # relative to the vector's largest element: kernels differ, models differ more
)
QUANTIZED_GOLDEN_TOLERANCE = 1e-2
"""Where the last bit of a float decides between two steps of an activation, a processor with other
kernels rounds to the other: 3.5e-3 between AVX-512 and SSE 4."""

GOLDEN_SECONDS = 2.0

INPUTS = ["waveform", "length"]
PROJECTION = ("readout.center", "readout.projection")
"""Outputs of a file with a readout that do not depend on its inputs: (P,) and (P, D). They finish
what was pooled from tiles."""

LOG_MEL = "log_mel"
"""Output with the log-mel that the encoder sees, before it is normalised: [batch, bands, frames].
Files that were written before it was given lack it."""

_SHORTAGES = ("bad_alloc", "pthread_create failed")  # in what ONNX Runtime says of them
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",  # 10 bits of mantissa would be no longer the same vector
    "cudnn_conv_algo_search": "HEURISTIC",  # no trials at the first batch of each shape
    "arena_extend_strategy": "kSameAsRequested",  # the shapes are few: no need to round up
}


class ModelFileError(ValueError):
    """A model file that is missing, broken, or computes something else than it says."""


class WrongKindError(ModelFileError):
    """A model file of another kind than the one that was asked for.

    Attributes:
        kind: what it is.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        """How it passes from a worker process to its parent."""
        return type(self), (str(self), self.kind)


C = TypeVar("C", bound=Part)


def open_session(
    path: str | Path, options: ort.SessionOptions | None = None
) -> tuple[ort.InferenceSession, Card]:
    """Open an encoder file, on a GPU where this runtime has one, and read its card.

    Raises:
        ModelFileError: as `open_as` does; a readout without its projection.
    """
    outputs = ["embedding", "frames"]
    providers: list[Provider] = [CPU]
    if CUDA in ort.get_available_providers():
        providers.insert(0, (CUDA, CUDA_OPTIONS))
    session, card = open_as(Card, "encoder", INPUTS, outputs, path, options, providers)
    given = {tensor.name for tensor in session.get_outputs()}
    if card.readout is not None and not set(PROJECTION) <= given:
        missing = ", ".join(PROJECTION)
        raise ModelFileError(f"{path} has a readout and no outputs {missing} that hold it")
    _check_pooling(card, path)
    return session, card


def _check_pooling(card: Card, path: str | Path) -> None:
    """Refuse parts of a pooled vector that do not lie in `frames`, or make none of its size."""
    n_columns, n_pooled = card.sizes["frames"], sum(part.n for part in card.pooled)
    for part in card.pooled:
        if part.kind == "deviation" and part.within is None:
            raise ModelFileError(f"{path}: by its card a deviation has no variances (`within`)")
        last = max(part.columns.stop, 0 if part.within is None else part.variances.stop)
        if last > n_columns:
            raise ModelFileError(
                f"{path}: by its card a statistic takes column {last} of frames of {n_columns}"
            )
    expected = card.embed_dim if card.readout is None else card.readout.pooled_dim
    if n_pooled != expected:
        raise ModelFileError(
            f"{path}: by its card the statistics have {n_pooled} values, and {expected} are pooled"
        )


def open_as(
    card_type: type[C],
    kind: str,
    inputs: list[str],
    outputs: list[str],
    path: str | Path,
    options: ort.SessionOptions | None = None,
    providers: Sequence[Provider] = (CPU,),
) -> tuple[ort.InferenceSession, C]:
    """Open a model file as one of this kind, with these inputs and at least these outputs.

    Raises:
        WrongKindError: it is of another kind.
        ModelFileError: no such file, not readable, not ONNX, without a card, or with inputs and
        outputs other than those of its kind.
    """
    if not Path(path).is_file():
        raise ModelFileError(f"no model file at {path}")
    if _is_no_text(str(path)):
        raise ModelFileError(f"the name {str(path)!r} is not UTF-8, as it has to be: rename it")
    try:
        Path(path).open("rb").close()  # ONNX Runtime does not say what keeps it
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    opened = _opened(card_type, kind, inputs, outputs, str(path), str(path), options, providers)
    session, card = opened
    return session, card.model_copy(update={"name": Path(path).stem})  # a file renamed is too


def _is_no_text(path: str) -> bool:
    """Whether a path has bytes that are no letters; ONNX Runtime takes UTF-8 only."""
    return any("\ud800" <= letter <= "\udfff" for letter in path)


def open_bytes(
    card_type: type[C],
    kind: str,
    inputs: list[str],
    outputs: list[str],
    content: bytes,
    name: str,
    options: ort.SessionOptions | None = None,
) -> tuple[ort.InferenceSession, C]:
    """`open_as` for the content of a file, of a model that is called `name`."""
    where = f"the model {name}"
    session, card = _opened(card_type, kind, inputs, outputs, content, where, options, (CPU,))
    return session, card.model_copy(update={"name": name})


def _opened(
    card_type: type[C],
    kind: str,
    inputs: list[str],
    outputs: list[str],
    source: str | bytes,
    where: str,
    options: ort.SessionOptions | None,
    providers: Sequence[Provider],
) -> tuple[ort.InferenceSession, C]:
    try:
        session = ort.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # onnxruntime's own exceptions share no base class but Exception
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _SHORTAGES):
            raise ModelFileError(
                f"there is too little memory, or there are too few threads, to open {where}"
            ) from error
        raise ModelFileError(f"{where} is not an ONNX file that this runtime can open") from error
    content = _read_card(session.get_modelmeta().custom_metadata_map, where)
    if content.get("kind") != kind:
        found = str(content.get("kind"))
        raise WrongKindError(f"{where} is a file of kind {found}; expected kind {kind}", found)
    try:
        card = card_type.model_validate(content)
    except ValidationError as error:
        told = "; ".join(": ".join([*map(str, e["loc"]), e["msg"]]) for e in error.errors())
        raise ModelFileError(f"the card of {where} is not valid: {told}") from error
    found_in = {tensor.name for tensor in session.get_inputs()}
    found_out = {tensor.name for tensor in session.get_outputs()}
    if found_in != set(inputs) or not set(outputs) <= found_out:
        raise ModelFileError(
            f"{where} has inputs {sorted(found_in)} and outputs {sorted(found_out)}; "
            f"of kind {kind}, it has inputs {sorted(inputs)} and outputs {sorted(outputs)}"
        )
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        size, stated = tensor.shape[-1] if tensor.shape else None, card.sizes.get(tensor.name)
        if stated is not None and isinstance(size, int) and size != stated:  # a name: any size
            raise ModelFileError(
                f"{where} has {size} values in its tensor {tensor.name}, its card says {stated}"
            )
    return session, card


def reference_signal() -> NDArray[np.float32]:
    """The golden vector's signal, 2 s: a chirp from 100 Hz to 6 kHz, then silence; (S,)."""
    t = np.arange(int(GOLDEN_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    chirp = np.sin(2 * np.pi * (100 * t + 1475 * t**2)) * np.minimum(t, 0.5)
    return np.where(t < 1.75, chirp, 0).astype(np.float32)


def golden_tolerance(card: Card) -> float:
    """How far from the golden vector a machine may be that computes what the card says."""
    return GOLDEN_TOLERANCE if card.quantization is None else QUANTIZED_GOLDEN_TOLERANCE


def golden_error(card: Card, embedding: NDArray[np.float32]) -> float:
    """Largest difference from the golden vector, relative to its largest element.

    Raises:
        ModelFileError: beyond `golden_tolerance`, of another size, or not finite.
    """
    golden = card.golden.vector()
    if embedding.shape != golden.shape:
        raise ModelFileError(
            f"{card.name} gives {embedding.shape} values, its card holds {golden.shape}"
        )
    error = float(np.abs(embedding - golden).max() / np.abs(golden).max())
    tolerance = golden_tolerance(card)
    if not error <= tolerance:  # also when it is not a number
        raise ModelFileError(
            f"{card.name} is {error:.2g} off its golden vector on this machine; at most "
            f"{tolerance:g} is allowed: the file or the runtime is broken"
        )
    return error


def write(proto: Any, card: BaseModel, path: Path) -> None:
    """Put the card into an ONNX ModelProto and write it."""
    content = serialized(proto, card)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def serialized(proto: Any, card: BaseModel) -> bytes:
    """An ONNX ModelProto with the card in it, as a file holds it."""
    kept = [entry for entry in proto.metadata_props if entry.key != CARD_KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    proto.metadata_props.add(key=CARD_KEY, value=card.model_dump_json())
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _read_card(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    """The card's content, of whatever kind, in the schema that this version reads."""
    if CARD_KEY not in metadata:
        raise ModelFileError(f"{path} has no card ({CARD_KEY}); was it written by viola export?")
    try:
        content = json.loads(metadata[CARD_KEY])
    except (ValueError, RecursionError) as error:  # also digits or brackets in thousands
        raise ModelFileError(f"the card of {path} is not JSON") from error
    schema = content.get("card_schema") if isinstance(content, dict) else None
    if schema != CARD_SCHEMA:
        raise ModelFileError(f"{path} has card schema {schema}; this version reads {CARD_SCHEMA}")
    assert isinstance(content, dict)
    return content
