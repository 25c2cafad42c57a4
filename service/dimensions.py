"""Shorter vectors: the first values, at length 1, in the same space. `D` embedding dim."""

from collections.abc import Sequence
from dataclasses import replace

from models.card import Card
from models.windows import shortened
from service.clips import Embedded
from service.exceptions import Failure, ServiceError


def check_dimensions(dimensions: int | None, card: Card) -> None:
    """Refuse more values than the model's vectors have.

    Raises:
        ServiceError: `invalid-parameter`.
    """
    if dimensions is not None and dimensions > card.embed_dim:
        reason = f"{card.name} gives vectors of {card.embed_dim} values: ask for as many at most."
        raise ServiceError(
            "invalid-parameter", reason, param="dimensions", value=dimensions, limit=card.embed_dim
        )


def shorten(
    outcomes: Sequence[Embedded | Failure], dimensions: int | None
) -> list[Embedded | Failure]:
    """The files of a request with vectors of so many values, of all if None."""
    return [
        _shortened(item, dimensions) if isinstance(item, Embedded) else item for item in outcomes
    ]


def _shortened(file: Embedded, dimensions: int | None) -> Embedded:
    windows = file.windows
    if windows is not None:
        windows = replace(
            windows,
            embedding=shortened(windows.embedding, dimensions),
            whole=shortened(windows.whole, dimensions),
        )
    return replace(file, embedding=shortened(file.embedding, dimensions), windows=windows)
