"""TriBYOL (Li, Togo, Ogawa, Haseyama, arXiv 2206.03012): two targets and three views.

Made for small batches. The paper's text was not at hand: both versions are reconstructions from
what others implemented (MYOL's authors: A; TorchFreya: B). Letters: `B` batch, `F` mel bands, `T`
frames, `P` projection dim.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from models.nn.encoder import ConvEncoder
from training.distributed import World
from training.objectives.objective import (
    Objective,
    ObjectiveSettings,
    Outcome,
    move_average,
    regression_loss,
)
from training.schedules import ema_decay


class Settings(ObjectiveSettings):
    """TriBYOL, and the choices that its reconstruction leaves."""

    paper: ClassVar[str] = "arXiv 2206.03012"

    name: Literal["tribyol"] = "tribyol"
    version: Literal["A", "B"] = "A"
    """A: both directions, targets move in turn. B: the first view predicts, both targets move."""

    symmetrize: bool | None = None
    """Predict in both directions; as the version does if not given."""

    alternate: bool | None = None
    """One target moves a step, in turn; as the version does if not given."""

    second_ema_decay: float | None = Field(None, ge=0, le=1)
    """Of the second target; if not given: the first one's, or 0.996 if both move at each step."""

    @property
    def symmetrizes(self) -> bool:
        """Whether both views of a pair are predicted."""
        return self.version == "A" if self.symmetrize is None else self.symmetrize

    @property
    def alternates(self) -> bool:
        """Whether the targets move in turn."""
        return self.version == "A" if self.alternate is None else self.alternate

    @property
    def second_decay(self) -> float:
        """What the second target's EMA decay is, or begins with."""
        if self.second_ema_decay is not None:
            return self.second_ema_decay
        return self.ema_decay if self.alternates else 0.996

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        if not self.alternates and self.second_decay == self.ema_decay:
            raise ValueError(
                f"ema_decay and second_ema_decay are both {self.ema_decay:g}: two targets that "
                "move at each step would stay one; give them different decays, or set "
                "alternate = true"
            )
        return self

    def build(self, encoder: ConvEncoder, world: World) -> "TriBYOL":
        """The method around an encoder."""
        return TriBYOL(encoder, self, world)


class TriBYOL(Objective):
    """Predict the second view as the first target projects it, the third as the second one does.

    The loss is twice the mean of 2 - 2 cos over its terms, as BYOL's is: in [0, 8] for both
    versions, and BYOL's own if the second and third view and both targets are the same. In version
    A a step takes three online and four target passes, in B one and two; BYOL takes two and two.
    """

    n_views: ClassVar[int] = 3
    settings: Settings
    second_ema_decay: Tensor
    moves: Tensor

    def __init__(self, encoder: ConvEncoder, settings: Settings, world: World = World()) -> None:
        super().__init__(encoder, settings, world)
        self.predictor = settings.head(settings.projection_dim)
        self.second_target = deepcopy(self.target)
        self.register_buffer("second_ema_decay", torch.zeros(()), persistent=False)
        self.register_buffer("moves", torch.zeros(2), persistent=False)  # 1: this target moves

    def schedule(self, step: int, total_steps: int) -> dict[str, float]:
        """The decays of both targets."""
        settings = self.settings
        second = ema_decay(settings.second_decay, settings.ema_schedule, step, total_steps)
        return {**super().schedule(step, total_steps), "second_ema_decay": second}

    def before_step(self, step: int, total_steps: int) -> None:
        """Note the decays, and whose turn it is: it follows from the step, also after a resume."""
        super().before_step(step, total_steps)
        if self.settings.alternates:
            self.moves[0].fill_(1 - step % 2)
            self.moves[1].fill_(step % 2)
        else:
            self.moves.fill_(1)

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Three views (B, F, T) -> a loss in [0, 8], and the first view's projections."""
        first, second, third = views
        both = self.settings.symmetrizes
        projections = self.of_each_view(self.online, views if both else [first])
        predictions = self.of_each_view(self.predictor, projections)
        with torch.no_grad():
            ones = self.of_each_view(self.target, [second, first] if both else [second])
            twos = self.of_each_view(self.second_target, [third, first] if both else [third])
        loss = regression_loss(predictions[0], ones[0]) + regression_loss(predictions[0], twos[0])
        logs = {}
        if both:
            back = regression_loss(predictions[1], ones[1]) + regression_loss(
                predictions[2], twos[1]
            )
            loss = (loss + back) / 2
            agreement = F.cosine_similarity(ones[1].float(), twos[1].float(), dim=1).mean()
            logs["target_agreement"] = agreement  # of both targets on the first view
        return Outcome(loss, projections[0].detach(), predictions[0].detach(), ones[0], logs)

    def after_step(self) -> None:
        """Let the target follow whose turn it is; the other one keeps every bit."""
        decays = (self.ema_decay, self.second_ema_decay)
        for target, decay, moves in zip(
            (self.target, self.second_target), decays, self.moves, strict=True
        ):
            move_average(target, self.online, 1 - moves * (1 - decay))
