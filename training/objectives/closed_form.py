"""BYOL whose predictor is a matrix computed from the latents, not trained.

Neumann, Visser, Newton-Schulz and Stiefel of "The Edge of Orthogonality" (arXiv 2302.04817), and
as baselines the least-squares predictor of the batch, DirectPred (arXiv 2102.06810) and DirectCopy
(arXiv 2110.04947). Letters: `B` batch, `F` mel bands, `T` frames, `P` projection dim.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from training.distributed import World
from training.objectives import predictor_matrices as matrices
from training.objectives.objective import Objective, ObjectiveSettings, Outcome, symmetric_loss

ITERATIONS = {"stiefel": 9, "newton_schulz": 9, "newton_schulz_twice": 7, "visser": 60}
RIDGES = {"optimal": 0.0, "direct_pred": 0.01, "direct_copy": 0.01}
DIRECT = ("direct_pred", "direct_copy")
PAPERS = {"direct_pred": "arXiv 2102.06810", "direct_copy": "arXiv 2110.04947"}


class Settings(ObjectiveSettings):
    """Which matrix, and how it is kept stable.

    The paper's text gives neither the decay of the predictor's EMA nor the scale at which the ridge
    is added, nor says that no gradient goes through the matrix: those are reconstructions. The
    matrix is computed from the projections as they are, not at length 1: a longer one weighs more
    in it, although the loss, a cosine, sees directions alone.
    """

    paper: ClassVar[str] = "arXiv 2302.04817"

    name: Literal["closed_form"] = "closed_form"
    predictor: Literal[
        "stiefel",
        "neumann",
        "visser",
        "newton_schulz",
        "newton_schulz_twice",
        "optimal",
        "direct_pred",
        "direct_copy",
    ] = "stiefel"
    iterations: int | None = Field(None, ge=1, le=200)
    """Of Stiefel and Newton-Schulz (9; 7 twice) and Visser (60), if not given."""

    eta: float = Field(0.5, gt=0, lt=1)
    """Step size of Visser; stable below 1, since the covariance is brought to norm 1."""

    ridge: float | None = Field(None, ge=0)
    """Multiple of I added to the matrix; 0.3, 0.01 for DirectPred and DirectCopy, 0 for optimal."""

    scale_before_ridge: Literal["spectral", "frobenius", "none"] = "spectral"
    """What the matrix is brought to before that: largest singular value 1, norm sqrt(P), or as is.

    Raw entries can be 1000 times below the ridge, which would then be all that is left.
    """

    predictor_ema: float | None = Field(None, ge=0, lt=1)
    """Decay of the matrix' EMA over the steps; 0.9, 0 for DirectPred and DirectCopy."""

    statistics_momentum: float = Field(0.3, ge=0, lt=1)
    """Decay of the covariance's EMA, for DirectPred and DirectCopy."""

    @property
    def method(self) -> str:
        """The predictor and its paper."""
        return f"{self.name}/{self.predictor} ({PAPERS.get(self.predictor, self.paper)})"

    @property
    def n_iterations(self) -> int:
        """Iterations, for the predictors that iterate."""
        return self.iterations or ITERATIONS.get(self.predictor, 1)

    @property
    def alpha(self) -> float:
        """The multiple of I that is added."""
        return RIDGES.get(self.predictor, 0.3) if self.ridge is None else self.ridge

    @property
    def matrix_decay(self) -> float:
        """The decay of the matrix' EMA."""
        if self.predictor_ema is not None:
            return self.predictor_ema
        return 0.0 if self.predictor in DIRECT else 0.9

    def build(self, encoder: ConvEncoder, world: World) -> "ClosedForm":
        """The method around an encoder."""
        return ClosedForm(encoder, self, world)


class ClosedForm(Objective):
    """BYOL, but the predictor follows from the projections of the step, or of those before."""

    predictor: "MatrixPredictor"

    def __init__(self, encoder: ConvEncoder, settings: Settings, world: World = World()) -> None:
        super().__init__(encoder, settings, world)
        self.predictor = MatrixPredictor(settings, world)

    def before_step(self, step: int, total_steps: int) -> None:
        """DirectPred and DirectCopy overwrite the predictor between the steps."""
        super().before_step(step, total_steps)
        if step > 0:
            self.predictor.overwrite()

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Two views (B, F, T) -> a loss in [0, 8], and the first view's projections."""
        projections = self.of_each_view(self.online, views)
        with torch.no_grad():
            targets = self.of_each_view(self.target, views)
        # In float32: a root of a matrix has no use for the digits of bfloat16
        with torch.autocast(views[0].device.type, enabled=False):
            projections = [projection.float() for projection in projections]
            self.predictor.update(torch.cat(projections).detach(), torch.cat(targets[::-1]).float())
            predictions = [self.predictor(projection) for projection in projections]
            loss = symmetric_loss(predictions, targets)
        logs = {"predictor_rank": matrices.stable_rank(self.predictor.matrix)}
        return Outcome(loss, projections[0].detach(), predictions[0].detach(), targets[1], logs)


class MatrixPredictor(nn.Module):
    """A matrix that latents are multiplied by: (B, P) -> (B, P); a gradient passes to them alone.

    The matrix, its EMA at once, starts at 0 and the first batch's only differs from it by a factor,
    which no loss sees; that of DirectPred and DirectCopy starts at I.
    """

    matrix: Tensor
    statistics: Tensor

    def __init__(self, settings: Settings, world: World) -> None:
        super().__init__()
        self.settings, self.world = settings, world
        self.direct = settings.predictor in DIRECT
        dim = settings.projection_dim
        self.register_buffer("matrix", torch.eye(dim) if self.direct else torch.zeros(dim, dim))
        if self.direct:
            self.register_buffer("statistics", torch.zeros(dim, dim))

    def forward(self, projection: Tensor) -> Tensor:
        """Predict, in float32."""
        return projection @ self.matrix

    @torch.no_grad()
    def update(self, projections: Tensor, targets: Tensor) -> None:
        """Take in the projections of a step and what each of them shall predict: (2 B, P) each.

        Of several processes each sees the covariances of all.
        """
        settings = self.settings
        covariance = self.world.mean(projections.T @ projections / len(projections))
        if self.direct:
            self.statistics.lerp_(covariance, 1 - settings.statistics_momentum)
            return
        cross = self.world.mean(projections.T @ targets / len(projections))
        self.matrix.lerp_(self.ridged(self.solve(covariance, cross)), 1 - settings.matrix_decay)

    @torch.no_grad()
    def overwrite(self) -> None:
        """The matrix of DirectPred or DirectCopy by the statistics up to now; others stay.

        Here, between two steps, an eigendecomposition may wait for the device.
        """
        if self.settings.predictor == "direct_pred":
            fresh = matrices.symmetric_root(self.statistics)
        elif self.settings.predictor == "direct_copy":
            fresh = self.statistics
        else:
            return
        self.matrix.lerp_(self.ridged(fresh), 1 - self.settings.matrix_decay)

    def solve(self, covariance: Tensor, cross: Tensor) -> Tensor:
        """The matrix of a batch: (P, P), (P, P) -> (P, P)."""
        n = self.settings.n_iterations
        match self.settings.predictor:
            case "neumann":
                return matrices.neumann(covariance, cross)
            case "visser":
                return matrices.visser(covariance, n, self.settings.eta)
            case "newton_schulz":
                return matrices.newton_schulz_root(covariance, n)
            case "newton_schulz_twice":
                once = matrices.newton_schulz_root(covariance, n)
                return matrices.newton_schulz_root(once, n)
            case "stiefel":
                return matrices.stiefel(covariance, n)
            case _:
                return matrices.optimal(covariance, cross)

    def ridged(self, matrix: Tensor) -> Tensor:
        """A matrix at its scale, with the ridge on it."""
        settings = self.settings
        match settings.scale_before_ridge:
            case "spectral":
                size = matrices.spectral_norm(matrix)
            case "frobenius":
                size = torch.linalg.vector_norm(matrix) / len(matrix) ** 0.5
            case _:
                size = torch.ones_like(matrix[0, 0])
        size = size.clamp(min=torch.finfo(size.dtype).tiny)
        eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        return matrix / size + settings.alpha * eye
