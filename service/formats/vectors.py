"""A vector as a member of a JSON answer, or a refusal where the encoding cannot hold it.

Letters: `D` embedding dim.
"""

from collections.abc import Sequence

from service.clips import Embedded
from service.output import Encoding, Vector
from service.output_names import ENCODINGS
from service.problems import invalid_parameter


def vector(row: Vector, output: str) -> Vector | str:
    """A vector (D,) as a JSON answer holds it.

    Raises:
        Problem: a value is too large for the encoding.
    """
    encoding = ENCODINGS[output]
    _check_peak(row, encoding)
    return encoding.write(row)


def check_peaks(embedded: Sequence[Embedded], output: str) -> None:
    """Refuse vectors that the encoding cannot hold, before the first byte of the answer.

    Raises:
        Problem: a value is too large for it.
    """
    for file in embedded:
        _check_peak(file.embedding, ENCODINGS[output])
        if file.windows is not None:
            _check_peak(file.windows.embedding, ENCODINGS[output])


def _check_peak(values: Vector, encoding: Encoding) -> None:
    limit = encoding.largest
    if limit is None:
        return
    if (peak := max(float(values.max()), -float(values.min()))) > limit:
        reason = f"output={encoding.name} holds no value of {peak:g}: ask for output=base64."
        raise invalid_parameter("output", reason, value=peak, limit=limit)
