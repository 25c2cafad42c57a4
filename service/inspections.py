"""Tells whether files would be accepted: by their headers, or on request by decoding them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.audio import SAMPLE_RATE, Header
from models.limits import AudioError
from models.quality import Quality
from models.selection import Selection
from service.audio.files import Upload
from service.engine import Engine
from service.exceptions import Failure, ServiceError
from service.inference.windowing import Windowing
from service.traffic.budget import Costs

HEADERS_ALONE = (
    "Told from the headers alone, the stream itself was not decoded: damage further on and a "
    "length that the headers do not tell show only then (decode=true)."
)
DECODED = "The whole stream was decoded."


@dataclass(frozen=True)
class Inspected:
    """What is known of one file; `failure` is what it would be refused for."""

    header: Header | None = None
    duration_s: float | None = None
    quality: Quality | None = None
    warnings: Sequence[str] = ()
    failure: Failure | None = None
    windows: int | None = None


async def inspect(
    engine: Engine,
    uploads: Sequence[Upload],
    windowing: Windowing | None,
    costs: Costs,
    selection: Selection,
    *,
    decode: bool,
) -> list[Inspected]:
    """Look at each file, and at what they come to together, as a request to embed them would."""
    inspected = []
    total_s, n_windows = 0.0, 0
    for upload in uploads:
        with costs.share.lent():
            found = await _look(engine, upload, costs, selection, decode)
        upload.forget()
        duration_s = found.duration_s
        if duration_s is not None and found.failure is None:
            n = windowing.count(round(duration_s * SAMPLE_RATE)) if windowing else 0
            failure = engine.duration_error(duration_s, total_s)
            failure = failure or engine.windows_error(n_windows + n)
            found = replace(found, failure=failure, windows=n if windowing else None)
            if failure is None:
                total_s, n_windows = total_s + duration_s, n_windows + n
        inspected.append(found)
    return inspected


async def _look(
    engine: Engine, upload: Upload, costs: Costs, selection: Selection, decode: bool
) -> Inspected:
    """One file by itself."""
    found, data = Inspected(), upload.data
    assert not isinstance(data, np.ndarray)  # a form and a body hold files
    try:
        header = await engine.decoder.read_header(data, costs, selection)
        found = Inspected(header, header.duration_s, warnings=header.warnings)
        if header.error:
            raise header.error
        if decode:
            decoded = await engine.decoder.read(data, costs, selection, measured=True)
            duration_s = len(decoded.samples) / SAMPLE_RATE
            return Inspected(header, duration_s, decoded.quality, decoded.warnings)
        return found
    except (AudioError, ServiceError) as error:
        return replace(found, failure=error)
