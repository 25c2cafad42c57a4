"""BYOL (arXiv 2006.07733) as BYOL-A trains it (arXiv 2103.06695): symmetrised loss, two networks.

Letters: `B` batch, `F` mel bands, `T` frames, `P` projection dim.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from training.distributed import World
from training.objectives.objective import (
    Objective,
    ObjectiveSettings,
    Outcome,
    regression_loss,
    symmetric_loss,
)


class Settings(ObjectiveSettings):
    """BYOL, with the paper's predictor or a linear one."""

    paper: ClassVar[str] = "arXiv 2006.07733"

    name: Literal["byol"] = "byol"
    predictor: Literal["mlp", "linear"] = "mlp"
    """`linear`: a trained matrix, what the closed forms of arXiv 2302.04817 are compared with."""

    local_views: int = Field(0, ge=0, le=8)
    """Multi-crop (arXiv 2006.09882, sec. 3.3): so many shorter views besides.

    The online network predicts both targets from each of them; no target sees one.
    """

    local_share: float = Field(0.5, ge=0.2, lt=1)
    """Of the segment's frames that a shorter view has."""

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
        self.n_local, self.local_share = settings.local_views, settings.local_share

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Two views (B, F, T), and shorter ones -> a loss in [0, 8], the first view's projections.

        With shorter views: the mean over all pairs of a prediction and the target of another view,
        times two, so that it is BYOL's where there are none.
        """
        whole, shorter = views[: self.n_views], views[self.n_views :]
        projections = self.of_each_view(self.online, whole)
        predictions = self.of_each_view(self.predictor, projections)
        with torch.no_grad():
            targets = self.of_each_view(self.target, whole)
        loss = symmetric_loss(predictions, targets)
        if shorter:
            parts = self.of_each_view(self.predictor, self.of_each_view(self.online, shorter))
            pairs = [regression_loss(part, target) for part in parts for target in targets]
            loss = 2 * (loss + torch.stack(pairs).sum()) / (2 + len(pairs))
        return Outcome(loss, projections[0].detach(), predictions[0].detach(), targets[1], {})
