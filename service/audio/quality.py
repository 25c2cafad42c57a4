"""The quality of a recording as answers tell it."""

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, Field

from models.quality import Quality


class QualityReport(BaseModel):
    """What was measured of a recording as it came, over all its channels."""

    container: str
    codec: str
    sample_rate: int = Field(description="Hz, before resampling.")
    channels: int = Field(description="Before the mix to mono.")
    duration_s: float
    bandwidth_hz: float | None = Field(
        default=None, description="The highest frequency within 70 dB of the strongest one."
    )
    clipped_share: float = Field(
        description="Of all samples: beyond full scale, or in a flat top close to it."
    )
    silent_share: float = Field(description="Of the time: below -60 dBFS.")
    dc_offset: float = Field(description="Mean of the channel whose mean is farthest from 0.")
    peak_dbfs: float | None = Field(default=None, description="None of digital silence.")
    rms_dbfs: float | None = Field(default=None, description="A full-scale sine has -3.")
    warnings: list[str] = Field(description="What may make the vector worth less, in words.")


def quality_report(quality: Quality | None, noticed: Sequence[str]) -> QualityReport | None:
    """The report, if the quality was measured; `noticed` is what decoding has warned of."""
    if quality is None:
        return None
    return QualityReport(**asdict(quality), warnings=[*noticed, *quality.warnings])
