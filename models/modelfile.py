"""The model file: an ONNX graph whose metadata holds a card; opened, verified and written here.

The card travels as JSON under one metadata key, so that the file alone says what it computes, on
what it was trained, and how any machine can prove that it computes the same. There are two kinds:
encoders, whose card is here, and classifiers, whose card is in `models.classifier`. Letters: `S`
samples, `D` embedding dim.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.atomic import replacing
from models.audio import SAMPLE_RATE

Provider = str | tuple[str, dict[str, str]]
"""An execution provider of ONNX Runtime by its name, with options or without."""

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT_MODEL = PRETRAINED / "default.onnx"
DEFAULT_CLASSIFIER = PRETRAINED / "sound-kinds.onnx"
CARD_KEY = "viola.card"
CARD_SCHEMA = 1
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


class Part(BaseModel):
    """A card or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Values of a row of each tensor whose size a card states."""
        return {}


class TrainingSource(Part):
    """One collection of training audio."""

    name: str
    hours: float
    licences: list[str] = []


class Training(Part):
    """How the weights came about; all of it is for people, none of it determines a vector."""

    method: str
    """Self-supervised method, or how the weights were obtained otherwise."""

    recipe: dict[str, Any] = {}
    steps: int = 0
    segments: int = 0
    seconds: float = 0.0
    """Wall-clock time of the optimiser steps."""

    hardware: str = ""
    hours: float = 0.0
    """Hours of audio in the training store."""

    sources: list[TrainingSource] = []
    commit: str = ""
    initial: "Training | None" = None
    """Of the weights that it began with, if those were not random; what stands above is of what
    came after."""


class Golden(Part):
    """The embedding of the reference signal, little-endian float32 in base64."""

    signal: Literal["chirp-2s-v1"] = "chirp-2s-v1"
    embedding: str

    @classmethod
    def of(cls, embedding: NDArray[np.float32]) -> "Golden":
        """Pack a vector (D,)."""
        return cls(embedding=packed(embedding))

    def vector(self) -> NDArray[np.float32]:
        """The vector (D,)."""
        return unpacked(self.embedding)


class Quantization(Part):
    """How the layers of an encoder came to compute in eight bits, and what that changed."""

    of: str
    """Name of the encoder that it was made from."""

    space_id: str
    """Its space."""

    activations: Literal["uint8, static scales"] = "uint8, static scales"
    weight_bits: int = Field(ge=2, le=8)
    layers: list[str]
    """Operator and shape of the weights of each."""

    clips: int
    """Clips that the ranges of activations were measured on."""

    seconds: float
    sources: dict[str, int]
    """Clips by the collection that they come from."""

    seed: int
    held_out: int
    """Other clips, whose vectors before and after were compared."""

    cosine_min: float
    cosine_mean: float


class Statistic(Part):
    """What pooling over time makes of some columns of `frames`, a part of the pooled vector."""

    kind: Literal["max+mean", "mean", "max", "deviation", "signed-root"]
    """`deviation` is that of log-mel frames: `frames` hold means and variances of a few of them.
    `signed-root` is the square root of the mean's size, with the mean's sign."""

    layer: str
    """Where the columns come from."""

    first: int = Field(ge=0)
    n: int = Field(gt=0)
    within: int | None = Field(None, ge=0)
    """First column of the variances, for `deviation`."""

    @property
    def columns(self) -> slice:
        """Of `frames`."""
        return slice(self.first, self.first + self.n)

    @property
    def variances(self) -> slice:
        """Columns of `frames` with the variances inside each frame."""
        assert self.within is not None
        return slice(self.within, self.within + self.n)


class Readout(Part):
    """How the one projection after pooling was measured, and what it does."""

    form: str
    pooled_dim: int = Field(gt=0)
    """Values of the pooled vector, of which the projection makes `embed_dim`."""

    unit_length: bool = True
    """Whether the vector has length 1."""

    settings: dict[str, Any] = {}
    segments: int = Field(0, ge=0)
    """Segments of the store that it was measured on."""

    seconds: list[float] = []
    """Their lengths."""


class Card(Part):
    """What an encoder file says of itself."""

    card_schema: Literal[1] = 1
    kind: Literal["encoder"] = "encoder"
    name: str
    description: str = ""
    licence: str = "unknown"
    encoder: str
    embed_dim: int = Field(gt=0)
    """Values of a vector."""

    feature_dim: int | None = Field(None, gt=0)
    """Values of a frame that the encoder gives; None: `embed_dim`."""

    frame_dim: int | None = Field(None, gt=0)
    """Values of a frame in the output `frames`; None: `embed_dim`."""

    hidden_dim: int | None = Field(None, gt=0)
    """Of the encoder's MLP; None: the paper's."""

    n_channels: int = Field(64, gt=0)
    """Of the encoder's first convolution."""

    norm: Literal["batch", "group", "layer", "none"] = "batch"
    """Of the encoder's feature maps; all but batch norm look at one frame alone."""

    weight_standardization: bool = False
    """Whether its filters are standardised."""

    sample_rate: Literal[16_000] = 16_000
    frame_hop: int = Field(gt=0)
    """Samples from one frame of features to the next."""

    frame_offset: int = Field(le=0)
    """First sample that frame 0 sees; negative, since it sees into the reflection before the
    clip."""

    receptive_field: int = Field(gt=0)
    """Samples that one frame of features sees."""

    context_frames: int = Field(0, ge=0)
    """Frames before it that a row of `frames` is made of as well."""

    min_samples: int = Field(gt=0)
    """Shorter clips are zero-padded to this inside the graph."""

    mean: float
    std: float = Field(gt=0)
    pooling: Literal["max+mean", "layers"] = "max+mean"
    """`max+mean` of all columns of `frames`, as in BYOL-A; or the `statistics` of layers."""

    statistics: tuple[Statistic, ...] = ()
    """Parts of the pooled vector in their order, for `layers`."""

    readout: Readout | None = None
    """None: the pooled vector is the embedding."""

    space_id: str
    """Hash over everything that determines a vector; only vectors of one space may be compared."""

    training: Training
    probes: dict[str, float] = {}
    """Linear-probe accuracy by downstream task, in [0, 1]."""

    quantization: Quantization | None = None
    """None: all of it computes in float32."""

    golden: Golden

    @property
    def sizes(self) -> dict[str, int]:
        """Of a vector, and of a row of `frames`."""
        return {"embedding": self.embed_dim, "frames": self.frame_dim or self.embed_dim}

    @property
    def pooled(self) -> tuple[Statistic, ...]:
        """Parts of the pooled vector, whatever the pooling."""
        n = self.frame_dim or self.embed_dim
        whole = Statistic(kind="max+mean", layer="features", first=0, n=n)
        return self.statistics or (whole,)

    @property
    def frame_features(self) -> int:
        """Columns of `frames` that describe a frame by itself, the first ones: what layers give.

        Those behind them are products with frames before it, which mean something once pooled.
        """
        products = [part.first for part in self.statistics if part.kind == "signed-root"]
        return min([*products, self.frame_dim or self.embed_dim])

    def n_frames(self, n_samples: int) -> int:
        """Frames of features of so many samples."""
        first = self.receptive_field + 2 * self.frame_offset  # samples that frame 0 needs
        return (max(n_samples, self.min_samples) - first) // self.frame_hop + 1


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
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            raise ModelFileError(f"there is too little memory to open {where}") from error
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


def packed(values: NDArray[np.float32]) -> str:
    """Numbers as little-endian float32 in base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float32]:
    """What `packed` packed, as one dimension."""
    try:
        return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
    except ValueError as error:
        raise ModelFileError("the card's golden values are not float32 in base64") from error


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
