"""BYOL (arXiv 2006.07733) as BYOL-A trains it (arXiv 2103.06695): symmetrised loss, two networks.

Letters: `B` batch, `F` mel bands, `T` frames, `P` projection dim.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from training.distributed import World
from training.objectives.objective import Objective, ObjectiveSettings, Outcome, symmetric_loss


class Settings(ObjectiveSettings):
    """BYOL, with the paper's predictor or a linear one."""

    paper: ClassVar[str] = "arXiv 2006.07733"

    name: Literal["byol"] = "byol"
    predictor: Literal["mlp", "linear"] = "mlp"
    """`linear`: a trained matrix, what the closed forms of arXiv 2302.04817 are compared with."""

    def build(self, encoder: ConvEncoder, world: World) -> "BYOL":
        """The method around an encoder."""
        return BYOL(encoder, self, world)


class BYOL(Objective):
    """Predict the target's projection of one view from the online projection of the other."""

    def __init__(self, encoder: ConvEncoder, settings: Settings, world: World = World()) -> None:
        super().__init__(encoder, settings, world)
        dim = settings.projection_dim
        linear = settings.predictor == "linear"
        self.predictor = nn.Linear(dim, dim, bias=False) if linear else settings.head(dim)

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Two views (B, F, T) -> a loss in [0, 8], and the first view's projections."""
        projections = self.each(self.online, views)
        predictions = self.each(self.predictor, projections)
        with torch.no_grad():
            targets = self.each(self.target, views)
        loss = symmetric_loss(predictions, targets)
        return Outcome(loss, projections[0].detach(), predictions[0].detach(), targets[1], {})
