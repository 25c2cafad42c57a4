"""Barlow Twins (arXiv 2103.03230): the views' cross-correlation shall be the identity.

With projections of both views, standardised over the batch, (B, P) each (sec. 2.1, eqs. 1 and 2):

    C_ij = 1 / B  sum over b of  Z_bi Z'_bj
    loss = sum over i of (1 - C_ii)^2  +  lambda  sum over i, j != i of C_ij^2

The authors' projector has three layers of 8192; here it is the project's, of sizes that the recipe
gives.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from models.nn.encoder import ConvEncoder
from training.distributed import World
from training.objectives.objective import ObjectiveSettings, Twins, off_diagonal_squares

EPS = 1e-5  # of the batch norm that the authors standardise with


class Settings(ObjectiveSettings):
    """Barlow Twins' weight; wide projections, as in the paper's fig. 4."""

    paper: ClassVar[str] = "arXiv 2103.03230"

    name: Literal["barlow_twins"] = "barlow_twins"
    projection_dim: int = Field(2048, gt=1)
    redundancy: float = Field(5e-3, ge=0)
    """Barlow Twins: lambda, the weight of what lies off the diagonal."""

    def build(self, encoder: ConvEncoder, world: World) -> "BarlowTwins":
        """The method around an encoder."""
        return BarlowTwins(encoder, self, world)


class BarlowTwins(Twins):
    """Correlation of each dimension with itself in the other view, and with no other."""

    settings: Settings

    def __init__(self, encoder: ConvEncoder, settings: Settings, world: World = World()) -> None:
        super().__init__(encoder, settings, world)

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Equation 1."""
        correlation = _standardized(first).T @ _standardized(second) / len(first)
        on_diagonal = (1 - correlation.diagonal()).square().sum()
        off_diagonal = off_diagonal_squares(correlation)
        logs = {"on_diagonal": on_diagonal.detach(), "off_diagonal": off_diagonal.detach()}
        return on_diagonal + self.settings.redundancy * off_diagonal, logs


def _standardized(z: Tensor) -> Tensor:
    """Zero mean and unit deviation over the batch: (B, P) kept."""
    centred = z - z.mean(dim=0)
    return centred * (z.var(dim=0, unbiased=False) + EPS).rsqrt()
