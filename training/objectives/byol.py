"""BYOL (arXiv 2006.07733) as BYOL-A trains it (arXiv 2103.06695): symmetrised loss, two networks.

Letters: `B` batch, `F` mel bands, `T` frames, `D` embedding dim, `P` projection dim.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from models.nn.pooling import MaxMeanPool
from training.recipe import Objective


class Outcome(NamedTuple):
    """The loss of a step, and what tells whether it collapses: (B, P) each, without a gradient."""

    loss: Tensor
    projection: Tensor
    prediction: Tensor
    target: Tensor


class Branch(nn.Module):
    """Encoder, pooling and projector: post-normalised log-mels (B, F, T) -> projections (B, P)."""

    def __init__(self, encoder: ConvEncoder, settings: Objective) -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = MaxMeanPool()
        self.projector = settings.head(encoder.embed_dim)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Project a batch of one view."""
        projection: Tensor = self.projector(self.pool(self.encoder(log_mel[:, None])))
        return projection


class BYOL(nn.Module):
    """Predict the target's projection of one view from the online projection of the other.

    The target starts as a copy of the online branch, takes no gradient and runs in training mode
    with batch statistics of its own; the EMA moves its parameters and leaves its running statistics
    alone, as in the reference. There each view is a forward pass of its own, so that batch norm
    sees one view at a time; with `joint_views` both views are one batch of 2 B.
    """

    n_views = 2

    def __init__(self, encoder: ConvEncoder, settings: Objective) -> None:
        super().__init__()
        self.joint_views = settings.joint_views
        self.online = Branch(encoder, settings)
        self.predictor = settings.head(settings.projection_dim)
        self.target = deepcopy(self.online).requires_grad_(False)

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Two views (B, F, T) -> a loss in [0, 8], and the first view's projections."""
        batches = [torch.cat(list(views))] if self.joint_views else views
        projections = [self.online(batch) for batch in batches]
        predictions = [self.predictor(projection) for projection in projections]
        with torch.no_grad():
            targets = [self.target(batch) for batch in batches]
        if self.joint_views:
            projections, predictions, targets = (
                list(both[0].chunk(2)) for both in (projections, predictions, targets)
            )
        loss = regression_loss(predictions[0], targets[1]) + regression_loss(
            predictions[1], targets[0]
        )
        return Outcome(loss, projections[0].detach(), predictions[0].detach(), targets[1])

    @torch.no_grad()
    def after_step(self, ema_decay: Tensor) -> None:
        """EMA: target <- decay * target + (1 - decay) * online, with a decay of shape ()."""
        target: list[Tensor] = list(self.target.parameters())
        online: list[Tensor] = list(self.online.parameters())
        torch._foreach_lerp_(target, online, [1 - ema_decay] * len(target))


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of 2 - 2 cos over the batch, in [0, 4]: (B, P), (B, P) -> scalar. BYOL eq. 2."""
    return 2 - 2 * F.cosine_similarity(prediction.float(), target.float(), dim=1).mean()
