"""Signs that an encoder maps everything to the same few vectors, measured while it trains.

Letters: `B` batch, `P` projection dim.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_STD = 0.1  # of 1 on a uniform sphere
MIN_RANK = 3.0
MAX_COSINE = 0.999
MAX_POSITIVE_SHARE = 0.5


@torch.no_grad()
def measure(projection: Tensor, prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Online projections, predictions and target projections of one view, each (B, P)."""
    return {
        "projection_std": projection_std(projection).item(),
        "effective_rank": effective_rank(projection),
        "prediction_cosine": F.cosine_similarity(prediction.float(), target.float()).mean().item(),
    }


def projection_std(projection: Tensor) -> Tensor:
    """Spread of normalised projections (B, P): 1 on a uniform sphere, 0 when collapsed."""
    unit = F.normalize(projection.float(), dim=1)
    return unit.std(dim=0).mean() * math.sqrt(unit.shape[1])


def effective_rank(projection: Tensor) -> float:
    """Exponential of the entropy of the covariance's spectrum: (B, P) -> 1 to min(B - 1, P).

    Roy and Vetterli, "The effective rank", 2007, on normalised, centred projections. Of the
    covariance rather than of the singular values, so that weak directions count for less.
    """
    unit = F.normalize(projection.float(), dim=1).cpu()
    unit = unit - unit.mean(0)
    variance = torch.linalg.svdvals(unit).square()
    share = variance / variance.sum().clamp(min=torch.finfo(variance.dtype).tiny)
    return math.exp(torch.special.entr(share).sum().item())


def alarms(values: Mapping[str, float], n_rows: int | None = None) -> list[str]:
    """What looks like a collapse among the values of `measure` and a method's logs, in words.

    `n_rows`: how many rows were measured; the rank of a few says nothing.
    """
    ranked = n_rows is None or n_rows > 2 * MIN_RANK
    found = []
    if values["projection_std"] < MIN_STD:
        found.append(
            f"the projections' deviation is {values['projection_std']:.3f}, below {MIN_STD:g}: all "
            "inputs get nearly the same vector"
        )
    elif ranked and values["effective_rank"] < MIN_RANK:
        found.append(
            f"the projections' effective rank is {values['effective_rank']:.1f}, below "
            f"{MIN_RANK:g}: they fill a line or a plane"
        )
    if values["prediction_cosine"] > MAX_COSINE:
        found.append(
            f"predictions and targets have a cosine of {values['prediction_cosine']:.4f}, above "
            f"{MAX_COSINE:g}: the task is solved, or the networks have collapsed"
        )
    if values.get("positive_share", 0) > MAX_POSITIVE_SHARE:
        found.append(
            f"the share of pairs taken for the same sound is {values['positive_share']:.2f}, above "
            f"{MAX_POSITIVE_SHARE:g}: the networks have collapsed, or the threshold is too low"
        )
    return found
