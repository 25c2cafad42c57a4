"""The projection of pooled vectors, so that a cosine means something and the best values are first.

Pooled vectors have a few directions with nearly all of the variance: any two sounds are alike by
them. They are standardised, each block of statistics by its weight, rotated to the principal axes
of a store, and every axis is divided by a power of its variance (whitening: Kessy, Lewin and
Strimmer, arXiv 1512.00809). Then the directions are shrunk in which a vector changes although the
sound does not (by a codec, noise, a lower bandwidth): they are divided by a power of the covariance
of these changes (within-class covariance normalisation: Hatch, Kajarekar and Stolcke, Interspeech
2006, with a recording for a class). Values come in order of the variance that is left, so that the
first k are the best vector of k values. Letters: `N` segments, `P` pooled values, `D` embedding
dim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from models.card import Statistic
from models.nn.readout import Projection


@dataclass(frozen=True)
class Form:
    """How a projection is made.

    Attributes:
        embed_dim: values that are kept, at most.
        power: an axis is divided by this power of its variance; 0: kept, 0.5: whitened.
        floor: added to the variances, so that axes of noise do not grow.
        weights: of the standardised statistics by layer; others have 1.
        within_power: an axis is divided by this power of the variance that disturbances make along
            it; 0: kept.
        within_floor: added to these variances, as a part of their mean.
    """

    embed_dim: int
    power: float = 0.5
    floor: float = 0.1
    weights: tuple[tuple[str, float], ...] = (("convolution", 0.5), ("autocovariance", 0.35))
    within_power: float = 0.25
    within_floor: float = 0.3

    def settings(self) -> dict[str, Any]:
        """For the card."""
        return {**asdict(self), "weights": dict(self.weights)}


def project(
    vectors: Tensor,
    differences: Mapping[str, Tensor],
    statistics: Sequence[Statistic],
    form: Form,
) -> Projection:
    """The projection of a form.

    Args:
        vectors: pooled vectors of segments, (N, P), float64.
        differences: by disturbance, how it changes the vectors of segments, each (n, P); each
            disturbance counts the same. Empty: `within_power` has no effect.
        statistics: what the pooled values are.
        form: how it is made.
    """
    std, center = torch.std_mean(vectors, dim=0)
    weights = dict(form.weights)
    by_layer = [torch.full((s.n,), weights.get(s.layer, 1.0)) for s in statistics]
    scale = torch.cat(by_layer).double() / std.clamp(min=1e-6)  # what is constant stays so
    centred = vectors - center
    variance, axes = principal_axes(torch.cov((centred * scale).T))
    n = min(len(scale), len(vectors) - 1)
    matrix = scale[:, None] * axes[:, :n] * (variance[:n] + form.floor) ** -form.power
    described = "standardised, rotated to principal axes, divided by a power of their variance"
    if differences and form.within_power:
        described += ", then by a power of the covariance that disturbances make"
        matrix = matrix @ _divided(_within(differences, matrix), form)
        matrix = matrix @ principal_axes(torch.cov((centred @ matrix).T))[1]
    return Projection(
        center.float(),
        matrix[:, : form.embed_dim].float(),
        form=described,
        settings=form.settings(),
    )


def principal_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Variances and axes of a covariance (P, P), axes as columns, the largest first."""
    variance, axes = torch.linalg.eigh(covariance)
    return variance.flip(0).clamp(min=0), axes.flip(1)


def _within(differences: Mapping[str, Tensor], matrix: Tensor) -> Tensor:
    """The mean covariance of the differences along a matrix, that of each kind at trace 1."""
    covariances = []
    for rows in differences.values():
        along = rows.double() @ matrix
        covariance = along.T @ along
        covariances.append(covariance / covariance.trace().clamp(min=1e-12))
    return torch.stack(covariances).mean(dim=0)


def _divided(within: Tensor, form: Form) -> Tensor:
    """The matrix that divides by a power of a covariance, directions of its mean variance by 1."""
    variance, axes = principal_axes(within)
    relative = variance / variance.mean().clamp(min=1e-12) + form.within_floor
    return (axes * relative**-form.within_power) @ axes.T
