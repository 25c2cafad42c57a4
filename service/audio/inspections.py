"""Whether files would be accepted: told from their headers, on request after decoding them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from models.audio import SAMPLE_RATE, AudioError, Header, Selection
from models.quality import Quality
from service.audio.quality import QualityReport
from service.audio.uploads import Upload
from service.engine import Engine, Windowing
from service.errors import audio_problem
from service.problems import Problem
from service.schemas import FileAnswer, Usage
from service.traffic.budget import Costs

HEADERS_ALONE = (
    "Told from the headers alone, the stream itself was not decoded: damage further on and a "
    "length that the headers do not tell show only then (decode=true)."
)
DECODED = "The whole stream was decoded."


@dataclass(frozen=True)
class Inspected:
    """What is known of one file; `problem` is what it would be refused for."""

    header: Header | None = None
    duration_s: float | None = None
    quality: Quality | None = None
    warnings: Sequence[str] = ()
    problem: Problem | None = None
    windows: int | None = None


class FileInspection(FileAnswer):
    """One file of a request: what it claims to be, and whether it would be accepted."""

    object: Literal["inspection"] = "inspection"
    is_accepted: bool
    container: str | None = None
    codec: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    is_duration_known: bool = Field(
        description="`duration_s` is what the headers claim, or what was decoded; else not known."
    )
    windows: int | None = Field(
        default=None, description="How many at most, with `window_s` and a known duration."
    )
    quality: QualityReport | None = Field(default=None, description="With `decode=true`.")


class InspectionList(BaseModel):
    """The answer to a request for an inspection; files that would be refused are no failure."""

    object: Literal["list"] = "list"
    model: str
    space_id: str
    is_decoded: bool
    note: str
    data: list[FileInspection]
    usage: Usage


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
        if duration_s is not None and found.problem is None:
            n = windowing.count(duration_s) if windowing else 0
            problem = engine.duration_problem(duration_s, total_s)
            problem = problem or engine.windows_problem(n_windows + n)
            found = replace(found, problem=problem, windows=n if windowing else None)
            if problem is None:
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
    except AudioError as error:
        return replace(found, problem=audio_problem(error))
    except Problem as problem:
        return replace(found, problem=problem)
