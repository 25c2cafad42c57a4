"""What a run asks of a self-supervised method, and what the methods share.

A method is a file with its `Settings` and its `Objective`, named in `methods.py`. A run makes
`n_views` views of a batch and takes a step:

    objective.before_step(step, total_steps)    # numbers that change by plan
    outcome = objective(views)                  # loss, logs, what tells a collapse
    outcome.loss.backward(), optimizer.step()
    objective.after_step()                      # EMA of the target

On a GPU `forward` and `after_step` are recorded once and replayed: what changes by plan they read
from tensors that `before_step` fills, and they never wait for the device. What the next step
depends on is a parameter or a buffer, and so in the checkpoint; or it follows from the step.

Letters: `B` batch, `F` mel bands, `T` frames, `D` embedding dim, `P` projection dim.
"""

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from models.nn.heads import mlp
from models.nn.norm import N_GROUPS, Norm
from models.nn.pooling import MaxMeanPool
from training.distributed import World
from training.schedules import Schedule, ema_decay
from training.section import Section


class Outcome(NamedTuple):
    """The loss of a step, and what tells whether it collapses: (B, P) each, without a gradient."""

    loss: Tensor
    projection: Tensor
    prediction: Tensor
    target: Tensor
    logs: dict[str, Tensor]
    """Scalars without a gradient that the method adds to the record."""


class ObjectiveSettings(Section):
    """What all methods have: heads, and the EMA of the target."""

    paper: ClassVar[str]

    name: str
    hidden_dim: int = Field(4096, gt=0)
    projection_dim: int = Field(256, gt=0)
    norm: Norm = "batch"
    """Of the projector and the MLP predictors; the others need no batch."""

    weight_standardization: bool = False
    """Standardise the weights that this norm follows."""

    ema_decay: float = Field(0.99, ge=0, le=1)
    ema_schedule: Schedule = "constant"
    """`cosine` goes from `ema_decay` to 1 over the run, as BYOL does; BYOL-A keeps it constant."""

    joint_views: bool = False
    """One forward pass a network for all its views, which then share batch statistics.

    False, as in the reference: a pass a view, batch norm sees one view at a time.
    """

    @property
    def method(self) -> str:
        """The method and where it comes from, for the model's card."""
        return f"{self.name} ({self.paper})"

    @property
    def depends_on_length(self) -> bool:
        """Whether a step depends on how many steps the run has."""
        return self.ema_schedule != "constant"

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.norm == "group" and (self.hidden_dim % N_GROUPS or self.hidden_dim == N_GROUPS):
            raise ValueError(
                f"hidden_dim is {self.hidden_dim}; group norm needs a multiple of {N_GROUPS}, from "
                f"{2 * N_GROUPS} on"
            )
        return self

    def head(self, in_dim: int) -> nn.Sequential:
        """A projector or predictor of these sizes: (B, in_dim) -> (B, P)."""
        norm, standardize = self.norm, self.weight_standardization
        return mlp(in_dim, self.hidden_dim, self.projection_dim, norm, standardize)

    @abstractmethod
    def build(self, encoder: ConvEncoder, world: World) -> "Objective":
        """The method around an encoder, as one of the processes of `world` has it."""


class Branch(nn.Module):
    """Encoder, pooling and projector: post-normalised log-mels (B, F, T) -> projections (B, P)."""

    def __init__(self, encoder: ConvEncoder, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = MaxMeanPool()
        self.projector = settings.head(encoder.embed_dim)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Project a batch of one view."""
        projection: Tensor = self.projector(self.pool(self.encoder(log_mel[:, None])))
        return projection


class Objective(nn.Module):
    """Two networks: the online one is trained, the target follows it.

    The target starts as a copy of the online branch, takes no gradient and runs in training mode
    with batch statistics of its own; the EMA moves its parameters and leaves its running statistics
    alone, as in the reference.
    """

    n_views: ClassVar[int] = 2
    n_local: int = 0
    """Shorter views besides, of `local_share` of the frames."""

    local_share: float = 0.5
    predictor: nn.Module
    ema_decay: Tensor

    def __init__(self, encoder: ConvEncoder, settings: ObjectiveSettings, world: World) -> None:
        super().__init__()
        self.settings, self.world = settings, world
        self.online = Branch(encoder, settings)
        self.target = deepcopy(self.online).requires_grad_(False)
        self.register_buffer("ema_decay", torch.zeros(()), persistent=False)

    def schedule(self, step: int, total_steps: int) -> dict[str, float]:
        """Numbers of a step that change by plan; the record shows them."""
        settings = self.settings
        decay = ema_decay(settings.ema_decay, settings.ema_schedule, step, total_steps)
        return {"ema_decay": decay}

    def before_step(self, step: int, total_steps: int) -> None:
        """Put the numbers of the plan into the buffers of their names."""
        for name, value in self.schedule(step, total_steps).items():
            self.get_buffer(name).fill_(value)

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Views (B, F, T) of the same segments -> the loss and what tells of it."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Move the target's average towards the online network."""
        move_average(self.target, self.online, self.ema_decay)

    def of_each_view(self, network: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
        """A pass of a network for each view, or one for all of them with `joint_views`."""
        if self.settings.joint_views:
            return list(network(torch.cat(list(views))).chunk(len(views)))
        return [network(view) for view in views]


@torch.no_grad()
def move_average(target: nn.Module, online: nn.Module, decay: Tensor) -> None:
    """EMA: target <- decay * target + (1 - decay) * online, with a decay of shape ()."""
    targets: list[Tensor] = list(target.parameters())
    torch._foreach_lerp_(targets, list(online.parameters()), [1 - decay] * len(targets))


class Twins(Objective):
    """One network that sees both views: no target, no predictor, a gradient through both.

    What keeps it from a collapse is in the loss, which looks at the projections of all processes.
    """

    def __init__(self, encoder: ConvEncoder, settings: ObjectiveSettings, world: World) -> None:
        nn.Module.__init__(self)
        self.settings, self.world = settings, world
        self.online = Branch(encoder, settings)
        self.predictor = nn.Identity()

    def schedule(self, step: int, total_steps: int) -> dict[str, float]:
        """Nothing changes by plan."""
        return {}

    def after_step(self) -> None:
        """Nothing follows."""

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Two views (B, F, T) -> the method's loss, and the first view's projections."""
        first, second = self.of_each_view(self.online, views)
        with torch.autocast(views[0].device.type, enabled=False):  # sums over all rows: float32
            pair = [self.world.gather_with_gradient(z.float()) for z in (first, second)]
            loss, logs = self.loss(*pair)
        shown = first.detach()
        return Outcome(loss, shown, shown, second.detach(), logs)

    def loss(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of both views' projections, (B, P) each, and what the record shows of it."""
        raise NotImplementedError


def off_diagonal_squares(matrix: Tensor) -> Tensor:
    """Sum of the squares of what lies off the diagonal: (P, P) -> scalar."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of 2 - 2 cos over the batch, in [0, 4]: (B, P), (B, P) -> scalar. BYOL eq. 2."""
    return 2 - 2 * F.cosine_similarity(prediction.float(), target.float(), dim=1).mean()


def symmetric_loss(predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Each view's target from the other's prediction, in [0, 8]: two of (B, P) each -> scalar.

    BYOL, sec. 3.1: the loss of both directions, summed.
    """
    first, second = predictions
    return regression_loss(first, targets[1]) + regression_loss(second, targets[0])
