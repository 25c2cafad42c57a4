"""Which of several media types a client would rather have (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from service.formats.pieces import JSON
from service.output_names import TABLES, USUAL

IN_ONE_PIECE = {JSON: USUAL} | {table.media_type: table.name for table in TABLES.values()}
"""The outputs by their media types; streams have others."""


def preferred(accept: str) -> str:
    """The output that an `Accept` header would rather have; JSON if it names none of them."""
    return IN_ONE_PIECE[negotiated(accept, list(IN_ONE_PIECE))]


def negotiated(accept: str, offered: Sequence[str]) -> str:
    """The offered type of the highest quality, among equals the one that is named first.

    Where none is acceptable it is the first one offered: RFC 9110 lets a server disregard the
    header, and an answer in JSON is worth more to a client than a 406.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()]

    def rank(media_type: str) -> tuple[float, int, int]:
        """Quality by the most specific range that covers the type, then how specific, how early."""
        covering = [
            (_specificity(pattern), quality, -place)
            for place, (pattern, quality) in enumerate(ranges)
            if pattern in (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        ]
        specificity, quality, place = max(covering, default=(0, 0.0, 0))
        return quality, specificity, place

    best = max(offered, key=rank)
    return best if rank(best)[0] > 0 else offered[0]


def _range(part: str) -> tuple[str, float]:
    """A media range and its quality: 1 where none is given, 0 where it is no number."""
    pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
    given = [value.removeprefix("q=") for value in parameters if value.startswith("q=")]
    try:
        quality = float(given[0]) if given else 1.0
    except ValueError:
        quality = 0.0
    return pattern, quality if 0 <= quality <= 1 else 0.0


def _specificity(pattern: str) -> int:
    return 0 if pattern == "*/*" else 1 if pattern.endswith("/*") else 2
