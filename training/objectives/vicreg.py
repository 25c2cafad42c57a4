"""VICReg (arXiv 2105.04906): views agree, each dimension keeps its spread, no two say the same.

With projections Z, Z' of both views, (B, P) each (sec. 4.1, eqs. 1 to 6):

    v(Z)     = mean over p of max(0, gamma - sqrt(var(Z_p) + eps))         spread
    c(Z)     = 1 / P  sum of squares off the diagonal of cov(Z)           redundancy
    s(Z, Z') = mean of (Z - Z')^2                                         agreement
    loss     = lambda s(Z, Z') + mu (v(Z) + v(Z')) + nu (c(Z) + c(Z'))

The paper's s is a sum over the dimensions; the mean is what its weights of 25, 25 and 1 go with in
the authors' experiments. Their expander has three layers of 8192; here it is the project's
projector, of sizes that the recipe gives.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from models.nn.encoder import ConvEncoder
from training.distributed import World
from training.objectives.objective import ObjectiveSettings, Twins, off_diagonal_squares

EPS = 1e-4


class Settings(ObjectiveSettings):
    """VICReg's weights; wide projections, which its covariance wants."""

    paper: ClassVar[str] = "arXiv 2105.04906"

    name: Literal["vicreg"] = "vicreg"
    projection_dim: int = Field(2048, gt=1)
    invariance: float = Field(25.0, ge=0)
    """VICReg: lambda, the weight of the views' agreement."""

    variance: float = Field(25.0, ge=0)
    """VICReg: mu, the weight of each dimension's spread."""

    covariance: float = Field(1.0, ge=0)
    """VICReg: nu, the weight of what two dimensions share."""

    target_std: float = Field(1.0, gt=0)
    """VICReg: gamma, the spread below which a dimension is pushed apart."""

    def build(self, encoder: ConvEncoder, world: World) -> "VICReg":
        """The method around an encoder."""
        return VICReg(encoder, self, world)


class VICReg(Twins):
    """Variance, invariance and covariance of the projections of both views."""

    settings: Settings

    def __init__(self, encoder: ConvEncoder, settings: Settings, world: World = World()) -> None:
        super().__init__(encoder, settings, world)

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 6."""
        settings = self.settings
        agreement = F.mse_loss(first, second)
        spread = _variance(first, settings.target_std) + _variance(second, settings.target_std)
        shared = _covariance(first) + _covariance(second)
        loss = settings.invariance * agreement + settings.variance * spread
        loss = loss + settings.covariance * shared
        logs = {"invariance": agreement, "variance": spread, "covariance": shared}
        return loss, {name: value.detach() for name, value in logs.items()}


def _variance(z: Tensor, target: float) -> Tensor:
    """Equations 1 and 2: (B, P) -> scalar."""
    return F.relu(target - torch.sqrt(z.var(dim=0) + EPS)).mean()


def _covariance(z: Tensor) -> Tensor:
    """Equations 3 and 4: (B, P) -> scalar."""
    centred = z - z.mean(dim=0)
    matrix = centred.T @ centred / (len(z) - 1)
    return off_diagonal_squares(matrix) / z.shape[1]
