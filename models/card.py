"""What an encoder file says of itself: what it computes, how it was trained, how that is proved.

The card of a classifier is in `models.classifier`. Letters: `D` embedding dim.
"""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

CARD_SCHEMA = 1


def packed(values: NDArray[np.float32]) -> str:
    """Numbers as little-endian float32 in base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float32]:
    """What `packed` packed, as one dimension."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


def _checked(text: str) -> str:
    try:
        unpacked(text)
    except ValueError:
        raise ValueError("not little-endian float32 in base64") from None
    return text


Packed = Annotated[str, AfterValidator(_checked)]
"""Numbers in a card: little-endian float32 in base64."""


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
    """The embedding of the reference signal."""

    signal: Literal["chirp-2s-v1"] = "chirp-2s-v1"
    embedding: Packed

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
