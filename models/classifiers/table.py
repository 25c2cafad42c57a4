"""Windows with what people said of them, as a fit takes them; and as bytes, to cross to a process.

The service makes tables and never loads scikit-learn; `models.classifiers.process` learns from
them. Letters: `N` windows, `D` embedding dim, `K` labels.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<Q")  # bytes of the JSON that follows


@dataclass(frozen=True)
class Order:
    """What is to be made.

    Attributes:
        name: of the classifier.
        task: what the windows are a collection of, for the card.
        encoder: computed the vectors.
        space_id: where they lie.
        protocol: how it is tested, a sentence for the card.
        licence: of the classifier, for the card.
        description: a sentence for the card.
        seed: of splits and samples.
    """

    name: str
    task: str
    encoder: str
    space_id: str
    protocol: str = ""
    licence: str = "unknown"
    description: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Table:
    """N windows to learn from.

    Attributes:
        labels: the K labels.
        multi_label: whether several can hold at once; else exactly one holds for each window.
        vectors: (N, D).
        holds: (N, K) which labels hold.
        known: (N, K) of which labels it is known whether they hold; all, where one holds.
        groups: (N,) windows of one group are never both learnt from and tested on.
        seconds: (N,) how long each window is.
    """

    labels: tuple[str, ...]
    multi_label: bool
    vectors: NDArray[np.float32]
    holds: NDArray[np.bool_]
    known: NDArray[np.bool_]
    groups: NDArray[np.int64]
    seconds: NDArray[np.float64]

    @property
    def counts(self) -> dict[str, int]:
        """Windows that hold each label."""
        return dict(zip(self.labels, self.holds.sum(axis=0).tolist(), strict=True))

    @property
    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        return [
            ("vectors", self.vectors.astype("<f4")),
            ("holds", self.holds.astype("?")),
            ("known", self.known.astype("?")),
            ("groups", self.groups.astype("<i8")),
            ("seconds", self.seconds.astype("<f8")),
        ]


def packed(table: Table, order: Order) -> list[bytes]:
    """Table and order in pieces, to be written one after the other."""
    arrays = table._arrays
    header = {
        "order": asdict(order),
        "labels": table.labels,
        "multi_label": table.multi_label,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in arrays],
    }
    return [*framed(header), *(np.ascontiguousarray(array).tobytes() for _, array in arrays)]


def unpacked(data: bytes) -> tuple[Table, Order]:
    """What `packed` packed.

    Raises:
        ValueError: it is cut off, or something else.
    """
    header, rest = unframed(data)
    arrays: dict[str, Any] = {}
    at = 0
    for name, kind, shape in header["arrays"]:
        n_values = int(np.prod(shape))
        arrays[name] = np.frombuffer(rest, np.dtype(kind), n_values, at).reshape(shape)
        at += arrays[name].nbytes
    table = Table(tuple(header["labels"]), header["multi_label"], **arrays)
    return table, Order(**header["order"])


def framed(header: dict[str, Any], body: bytes = b"") -> list[bytes]:
    """A JSON and bytes behind it, so that both can be told apart again."""
    text = json.dumps(header, allow_nan=False).encode()
    return [HEAD.pack(len(text)), text, body]


def unframed(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The JSON and the bytes behind it.

    Raises:
        ValueError: it is cut off.
    """
    if len(data) < HEAD.size:
        raise ValueError(f"{len(data)} bytes are no answer")
    (length,) = HEAD.unpack_from(data)
    end = HEAD.size + length
    header: dict[str, Any] = json.loads(data[HEAD.size : end])
    return header, memoryview(data)[end:]


def stacked(rows: Sequence[NDArray[np.float32]], embed_dim: int) -> NDArray[np.float32]:
    """Vectors (D,) as (N, D), also where there is none."""
    return np.stack(rows) if len(rows) else np.zeros((0, embed_dim), np.float32)
