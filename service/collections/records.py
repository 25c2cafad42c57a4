"""What a store holds, as values: collections, items, their vectors, labels.

Letters: `N` windows, `D` embedding dim.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.exceptions import Reason, ServiceError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Value = str | int | float | bool
Verdict = Literal["positive", "negative", "unsure"]

T = TypeVar("T")

MAX_IN = 500  # values that a query asks for at a time
PASSING: tuple[Reason, ...] = ("overloaded", "storage-full", "storage-unavailable")
RETRY_AFTER_S = 5  # what passes by itself


class StoreError(ServiceError):
    """Something that the store refuses; the message is a sentence that may be shown to anybody."""

    kind: Reason = "internal"

    def __init__(
        self,
        message: str,
        *,
        limit: float | None = None,
        observed: float | None = None,
        unit: str | None = None,
    ) -> None:
        retry_after_s = RETRY_AFTER_S if self.kind in PASSING else None
        super().__init__(
            self.kind,
            message,
            limit=limit,
            observed=observed,
            unit=unit,
            retry_after_s=retry_after_s,
        )


class CollectionNotFound(StoreError):
    """There is no such collection, or it is somebody else's."""

    kind = "collection-not-found"


class ItemNotFound(StoreError):
    """The collection has no item or label of that id."""

    kind = "item-not-found"


class NotInRecording(StoreError):
    """A stretch that lies behind the end of the recording."""

    kind = "not-in-recording"


class ItemConflict(StoreError):
    """The content is here under another id, or the id has other content."""

    kind = "item-conflict"


class CollectionDiffers(StoreError):
    """A collection of that name is there, and is of another model or other windows."""

    kind = "collection-differs"


class QuotaExceeded(StoreError):
    """It would be more than the operator allows."""

    kind = "collection-full"


class StoreBusy(StoreError):
    """Others write for longer than one waits; try again."""

    kind = "overloaded"


class StoreFull(StoreError):
    """There is no room on the disk; nothing was changed."""

    kind = "storage-full"


class StoreUnavailable(StoreError):
    """The disk, the file or the server of the database fails; the log says how."""

    kind = "storage-unavailable"


@dataclass(frozen=True)
class Terms:
    """What vectors a collection holds: fixed when it is made, and changed by `reembed` alone.

    Attributes:
        model: the name of the encoder.
        space_id: the space of its vectors.
        dimensions: values of a vector, D.
        window_s: seconds of a window; None: one vector a recording.
        hop_s: seconds from one window to the next.
        keeps_audio: whether the files are kept beside their vectors.
    """

    model: str
    space_id: str
    dimensions: int
    window_s: float | None = None
    hop_s: float | None = None
    keeps_audio: bool = False


@dataclass(frozen=True)
class Collection:
    """A collection and how much is in it.

    Attributes:
        key: its number in the store.
        owner: the name of the API key that made it, empty where there are no keys; for a collection
            of a group, the beginning of its name, `birds:`.
        n_bytes: of vectors, audio and metadata.
        revision: grows with every change of the items.
    """

    key: int
    owner: str
    name: str
    terms: Terms
    created_at: float
    n_items: int
    n_windows: int
    n_bytes: int
    revision: int

    @property
    def of_space(self) -> str:
        """Its name, model and space: the beginning of an error where another space is at hand."""
        return (
            f"collection {self.name!r} is of the model {self.terms.model}, space "
            f"{self.terms.space_id}"
        )

    @property
    def way_to_another_space(self) -> str:
        """What its owner can do about it: the end of such an error."""
        if self.terms.keeps_audio:
            return "move it: reembed computes its vectors anew, of the audio that it keeps"
        return "add its recordings to a new collection: it does not keep their audio"


@dataclass(frozen=True)
class Quota:
    """How much an owner may keep: collections, and items and bytes in each."""

    collections: int = 1000
    items: int = 10_000_000
    n_bytes: int = 1 << 40


@dataclass(frozen=True)
class Size:
    """How much there is of something: items, and windows of them."""

    items: int
    windows: int


@dataclass(frozen=True)
class NewItem:
    """A recording to be added.

    Attributes:
        sha256: of the file's bytes, in hexadecimal digits.
        start_s: of each window (N,).
        end_s: of each window (N,).
        vectors: of the windows (N, D), N >= 1.
        id: what the client calls it; None: we choose.
        file: its name in the request.
        audio: the file itself, where it is to be kept.
    """

    sha256: str
    start_s: Doubles
    end_s: Doubles
    vectors: Floats
    duration_s: float
    id: str | None = None
    file: str | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    audio: bytes | None = None


@dataclass(frozen=True)
class Item:
    """A recording of a collection; `key` is its number in the store, `id` is what clients say."""

    key: int
    id: str
    sha256: str
    file: str | None
    duration_s: float
    metadata: Mapping[str, Value]
    n_windows: int
    n_bytes: int
    has_audio: bool
    created_at: float


@dataclass(frozen=True)
class Added:
    """What became of an item that was to be added.

    Attributes:
        item: as it is stored; None where it was refused.
        is_new: whether it was not there before.
        refusal: why it was refused.
    """

    item: Item | None
    is_new: bool = False
    refusal: ItemConflict | None = None


@dataclass(frozen=True)
class Vectors:
    """Windows of a collection, in the order in which they were added.

    Attributes:
        windows: number of each window in the store (N,).
        items: key of the item that each belongs to (N,).
        start_s: in the recording (N,).
        end_s: in the recording (N,).
        vectors: as the encoder made them, float32 (N, D).
    """

    windows: Integers
    items: Integers
    start_s: Doubles
    end_s: Doubles
    vectors: Floats

    def __len__(self) -> int:
        """How many windows."""
        return len(self.windows)

    def where(self, chosen: NDArray[np.bool_] | Integers) -> "Vectors":
        """The chosen windows."""
        return Vectors(
            self.windows[chosen],
            self.items[chosen],
            self.start_s[chosen],
            self.end_s[chosen],
            self.vectors[chosen],
        )


@dataclass(frozen=True)
class Nearest:
    """The best windows for a query, best first; `score` is a cosine."""

    windows: Integers
    items: Integers
    start_s: Doubles
    end_s: Doubles
    score: Floats
    is_exact: bool = True


@dataclass(frozen=True)
class NewLabel:
    """What somebody says of an item, or of a stretch of it; both times or neither.

    `by` is its author, if that is not whoever adds it.
    """

    item_id: str
    label: str
    verdict: Verdict = "positive"
    start_s: float | None = None
    end_s: float | None = None
    by: str | None = None


@dataclass(frozen=True)
class Label:
    """A label as it is stored: `item` is the item's key, `by` says who, `created_at` when."""

    key: int
    item: int
    item_id: str
    label: str
    verdict: Verdict
    start_s: float | None
    end_s: float | None
    by: str
    created_at: float


def handfuls(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Values in parts of the size that one query may ask for."""
    for first in range(0, len(values), MAX_IN):
        yield values[first : first + MAX_IN]
