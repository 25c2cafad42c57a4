"""Vectors that a client has already, as JSON: `embedding` of one sound, or `embeddings` of several.

Letters: `N` vectors, `D` embedding dim.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import Field

from service.formats.json_body import (
    JSON,
    kind_of,
    member,
    parse_object,
    receive_json,
    take_values,
)
from service.parameters import FunctionToApply, Parameters, Score, TopK
from service.problems import Problem, invalid_parameter
from service.settings import Settings
from service.threads import in_thread
from service.traffic.budget import Share
from service.uploads.body import Body, Parse, declared_media_type

MAX_VALUES = 1_000_000  # numbers of a body's JSON; base64 takes far less
MAX_VALUE = 1e6  # of a vector, of which classifiers take squares
FIELDS = ("model", "head", "classifier", "top_k", "threshold", "function_to_apply")


class VectorsRequest(Parameters):
    """Vectors of this service's own, and what is asked about them."""

    space_id: str = Field(description="As it stood beside the vectors.")
    embedding: list[float] | str | None = Field(
        default=None, description="One vector: numbers, or little-endian float32 in base64."
    )
    embeddings: list[list[float] | str] | None = Field(default=None, description="Or several.")
    model: str | None = None
    head: str | None = None
    classifier: list[str] | str | None = None
    top_k: TopK | None = None
    threshold: Score | None = None
    function_to_apply: FunctionToApply | None = None


@dataclass(frozen=True)
class VectorBody(Body):
    """The vectors of a request as they came, and the space that they are said to lie in."""

    given: tuple[Any, ...] = ()
    space_id: str = ""

    def vectors(self, embed_dim: int) -> NDArray[np.float32]:
        """The vectors (N, D), checked.

        Raises:
            Problem: one is of another size, or holds what is no number.
        """
        names = [f"embeddings[{index}]" for index in range(len(self.given))]
        names = names if len(names) > 1 else ["embedding"]
        rows = [_vector(*each, embed_dim) for each in zip(self.given, names, strict=True)]
        return np.stack(rows)


def is_vectors(request: Request) -> bool:
    """Whether the body is said to be JSON, and so holds no file."""
    return declared_media_type(request) == JSON


async def read_vectors(request: Request, settings: Settings) -> Parse[VectorBody]:
    """Receive a request with vectors; they are still to be parsed.

    Raises:
        Problem: for a body that is malformed, too large or too slow.
    """
    share: Share = request.state.share
    document = await receive_json(request, settings)

    async def parse() -> VectorBody:
        await take_values(document, MAX_VALUES, share)
        return await in_thread(_parse, document, settings.max_windows)

    return parse


def _parse(body: bytearray, max_vectors: int) -> VectorBody:
    document = parse_object(body)
    body.clear()
    space_id = member(document, "space_id")
    if not isinstance(space_id, str):
        reason = f"space_id is {kind_of(space_id)}; expected the text beside the vectors."
        raise invalid_parameter("space_id", reason, value=kind_of(space_id))
    given = _given(document, max_vectors)
    for name in ("space_id", "embedding", "embeddings"):
        document.pop(name, None)
    for name, value in document.items():
        if name not in FIELDS:
            reason = f"{name} means nothing for vectors; accepted are {', '.join(FIELDS)}."
            raise invalid_parameter(name[:64], reason, value=kind_of(value))
    fields = {name: value for name, value in document.items() if value is not None}
    return VectorBody([], fields, given, space_id)


def _given(document: dict[str, Any], max_vectors: int) -> tuple[Any, ...]:
    one, several = document.get("embedding"), document.get("embeddings")
    if (one is None) == (several is None):
        reason = "Send `embedding`, one vector, or `embeddings`, a list of them."
        raise invalid_parameter("embedding", reason, value="both" if one else "none")
    if several is None:
        return (one,)
    if not isinstance(several, list) or not several:
        reason = f"embeddings is {kind_of(several)}; expected a list with a vector at least."
        raise invalid_parameter("embeddings", reason, value=kind_of(several))
    if len(several) > max_vectors:
        raise Problem(
            "too-many-windows",
            f"embeddings holds {len(several)} vectors; at most {max_vectors} are accepted.",
            limit=max_vectors,
            observed=len(several),
            unit="vectors",
            param="embeddings",
        )
    return tuple(several)


def _vector(given: Any, name: str, embed_dim: int) -> NDArray[np.float32]:
    """One vector (D,)."""
    if isinstance(given, str):
        values = _from_base64(given, name)
    elif isinstance(given, list) and all(type(value) in (int, float) for value in given):
        with np.errstate(over="ignore"):
            values = np.array(given, np.float64).astype(np.float32)
    else:
        reason = f"{name} is {kind_of(given)}; expected numbers, or float32 in base64."
        raise invalid_parameter(name, reason, value=kind_of(given))
    if len(values) != embed_dim:
        reason = f"{name} has {len(values)} values; vectors of this space have {embed_dim}."
        raise invalid_parameter(name, reason, value=len(values), limit=embed_dim)
    if not np.isfinite(values).all():
        reason = f"{name} holds values that are not finite in float32."
        raise invalid_parameter(name, reason, value="not finite")
    if (largest := float(np.abs(values).max())) > MAX_VALUE:
        reason = f"{name} holds a value of {largest:g}; at most {MAX_VALUE:g}: no model gives more."
        raise invalid_parameter(name, reason, value=largest, limit=MAX_VALUE)
    return values


def _from_base64(text: str, name: str) -> NDArray[np.float32]:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        reason = f"{name} is not base64 of float32 values."
        raise invalid_parameter(name, reason, value=text[:32]) from None
