"""Float16 in base64, as a member of a JSON document. Letters: `D` embedding dim."""

import base64

from service.output import Encoding, Vector


def _half(row: Vector) -> str:
    """A vector (D,) as little-endian float16."""
    return base64.b64encode(row.astype("<f2").tobytes()).decode()


FORMAT = Encoding(
    name="base64-f16",
    about="JSON with little-endian float16 in base64",
    write=_half,
    largest=65_504.0,
)
