"""BYOL (arXiv 2006.07733) as BYOL-A trains it (arXiv 2103.06695): symmetrised, constant EMA decay.

Letters: `B` batch, `F` mel bands, `T` frames, `D` embedding dim, `P` projection dim.
"""

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from models.nn.heads import mlp
from models.nn.pooling import MaxMeanPool


class Branch(nn.Module):
    """Encoder, pooling and projector: post-normalised log-mels (B, F, T) -> projections (B, P)."""

    def __init__(self, encoder: ConvEncoder, hidden_dim: int, projection_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = MaxMeanPool()
        self.projector = mlp(encoder.embed_dim, hidden_dim, projection_dim)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Project a batch of one view."""
        projection: Tensor = self.projector(self.pool(self.encoder(log_mel[:, None])))
        return projection


class BYOL(nn.Module):
    """Predict the target's projection of one view from the online projection of the other.

    The target starts as a copy of the online branch, takes no gradient and runs in training mode
    with batch statistics of its own; the EMA moves its parameters and leaves its running statistics
    alone, as in the reference. Each view is a forward pass of its own, so that batch norm sees one
    view at a time.
    """

    n_views = 2

    def __init__(
        self, encoder: ConvEncoder, hidden_dim: int, projection_dim: int, ema_decay: float
    ) -> None:
        super().__init__()
        self.ema_decay = ema_decay
        self.online = Branch(encoder, hidden_dim, projection_dim)
        self.predictor = mlp(projection_dim, hidden_dim, projection_dim)
        self.target = deepcopy(self.online).requires_grad_(False)

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Two views (B, F, T) -> the loss, a scalar in [0, 8], and what the log shows."""
        projections = [self.online(view) for view in views]
        predictions = [self.predictor(projection) for projection in projections]
        with torch.no_grad():
            targets = [self.target(view) for view in views]
        loss = regression_loss(predictions[0], targets[1]) + regression_loss(
            predictions[1], targets[0]
        )
        return loss, {"projection_std": projection_std(projections[0].detach())}

    @torch.no_grad()
    def after_step(self) -> None:
        """EMA: target <- decay * target + (1 - decay) * online."""
        torch._foreach_lerp_(
            list(self.target.parameters()), list(self.online.parameters()), 1 - self.ema_decay
        )


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of 2 - 2 cos over the batch, in [0, 4]: (B, P), (B, P) -> scalar. BYOL eq. 2."""
    return 2 - 2 * F.cosine_similarity(prediction.float(), target.float(), dim=1).mean()


def projection_std(projection: Tensor) -> Tensor:
    """Spread of normalised projections (B, P): 1 on a uniform sphere, 0 when collapsed."""
    unit = F.normalize(projection.float(), dim=1)
    return unit.std(dim=0).mean() * math.sqrt(unit.shape[1])
