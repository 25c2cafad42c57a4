"""Self-labelling refinement of BYOL: CCSL and CSSL (Garg and Jain, arXiv 2204.04545).

Pairs of a batch that look alike are taken for the same sound and pulled together, besides the two
views of each segment. The abstract, and thresholds in the authors' scripts, were at hand: both
losses are reconstructions, and what they leave open is an option. Letters: `B` batch of all
processes, `b` rows of this one, `F` mel bands, `T` frames, `P` projection dim.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from models.nn.encoder import ConvEncoder
from training.distributed import World
from training.objectives.objective import Objective, ObjectiveSettings, Outcome, symmetric_loss


class Settings(ObjectiveSettings):
    """Which pairs count as what, and from which step on."""

    paper: ClassVar[str] = "arXiv 2204.04545"

    name: Literal["self_labeling"] = "self_labeling"
    kind: Literal["ccsl", "cssl"] = "ccsl"
    """Regression onto the targets of all positives, or a sigmoid that tells pairs apart."""

    theta_positive: float = Field(0.8, ge=-1)
    """Pairs above are positives: of a cosine for CCSL, of a probability for CSSL."""

    theta_negative: float = Field(0.2, ge=-1)
    """Pairs below are negatives; those between the two are ignored."""

    warmup_steps: int | None = Field(None, ge=0)
    """Steps of plain BYOL at the start; a tenth of the run if not given."""

    max_positives: int = Field(8, ge=0)
    """Most positives of a segment, the nearest ones, besides its own other view."""

    labels_from: Literal["target", "prediction"] | None = None
    """What the likeness is between: targets of both views, or predictions and targets.

    If not given: targets for CCSL, since they move slower; predictions for CSSL.
    """

    negative_weight: float = Field(0.0, ge=0)
    """CCSL: weight of the squared positive cosines of negatives."""

    logits: Literal["cosine", "dot"] = "cosine"
    """CSSL: `logit_scale` cos + `logit_bias`, or the product of the vectors as they are.

    The sigmoid of a bare cosine lies in [0.27, 0.73] and would pass neither threshold.
    """

    logit_scale: float = Field(10.0, gt=0)
    logit_bias: float = -5.0
    weight: float = Field(1.0, ge=0)
    """CSSL: of its loss beside BYOL's."""

    with_byol: bool = True
    """CSSL: added to BYOL's loss, or alone."""

    @property
    def method(self) -> str:
        """The kind and its paper."""
        return f"{self.name}/{self.kind} ({self.paper})"

    @property
    def depends_on_length(self) -> bool:
        """Also where the warm-up is a part of the run."""
        return super().depends_on_length or self.warmup_steps is None

    @property
    def labels_by_target(self) -> bool:
        """Whether the likeness is between targets of both views."""
        return (self.labels_from or _LABELS_FROM[self.kind]) == "target"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.theta_negative >= self.theta_positive:
            raise ValueError(
                f"theta_negative is {self.theta_negative:g}, theta_positive "
                f"{self.theta_positive:g}; expected theta_negative < theta_positive"
            )
        return self

    def warmup(self, total_steps: int) -> int:
        """Steps of plain BYOL in a run of `total_steps`."""
        return total_steps // 10 if self.warmup_steps is None else self.warmup_steps

    def build(self, encoder: ConvEncoder, world: World) -> "SelfLabeling":
        """The method around an encoder."""
        return SelfLabeling(encoder, self, world)


_LABELS_FROM = {"ccsl": "target", "cssl": "prediction"}


class Labels(NamedTuple):
    """What the pairs of this process's rows with all columns are, (b, B), without a gradient."""

    positive: Tensor
    negative: Tensor
    n_found: Tensor
    """Positives of each row beside its own pair, before the cap: (b,)."""


class SelfLabeling(Objective):
    """BYOL's networks; after the warm-up, CCSL or CSSL on all pairs of the batch.

    The targets of all processes are gathered: the pairs of two processes are those of one process
    with their batch.
    """

    settings: Settings
    refines: Tensor

    def __init__(self, encoder: ConvEncoder, settings: Settings, world: World = World()) -> None:
        super().__init__(encoder, settings, world)
        self.predictor = settings.head(settings.projection_dim)
        self.register_buffer("refines", torch.zeros((), dtype=torch.bool), persistent=False)

    def before_step(self, step: int, total_steps: int) -> None:
        """Note whether the warm-up is over: it follows from the step, also after a resume."""
        super().before_step(step, total_steps)
        self.refines.fill_(step >= self.settings.warmup(total_steps))

    def forward(self, views: Sequence[Tensor]) -> Outcome:
        """Two views (B, F, T) -> a loss of BYOL's scale, and the first view's projections."""
        projections = self.of_each_view(self.online, views)
        predictions = self.of_each_view(self.predictor, projections)
        with torch.no_grad():
            targets = self.of_each_view(self.target, views)
        plain = symmetric_loss(predictions, targets)
        # In float32: a cosine of bfloat16 has two digits to pass a threshold with
        with torch.autocast(plain.device.type, enabled=False):
            first, found = self.refine(predictions[0], targets[0], targets[1])
            second, more = self.refine(predictions[1], targets[1], targets[0])
        refined = first + second
        if self.settings.kind == "cssl":
            refined = self.settings.weight * refined
            refined = plain + refined if self.settings.with_byol else refined
        loss = torch.where(self.refines, refined, plain)
        positives = (found + more) / 2
        n_others = self.world.size * len(views[0]) - 1
        logs = {"positives": positives, "positive_share": positives / n_others}
        return Outcome(loss, projections[0].detach(), predictions[0].detach(), targets[1], logs)

    def refine(self, prediction: Tensor, anchor: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """One direction: the loss, and the mean number of a row's positives beside its own pair.

        Args:
            prediction: of one view, (b, P).
            anchor: the target's projection of that view.
            target: the target's projection of the other view, which is to be predicted.
        """
        settings, world = self.settings, self.world
        targets = world.gather(target.float())  # (B, P)
        source = anchor if settings.labels_by_target else prediction.detach()
        likeness = self.likeness(source.float(), targets)
        own = torch.eye(len(targets), dtype=torch.bool, device=target.device)
        labels = label(likeness, own[world.rows(len(targets))], settings)
        if settings.kind == "ccsl":
            cosine = cosines(prediction.float(), targets)
            loss = mean_of(2 - 2 * cosine, labels.positive, world)
            if settings.negative_weight:
                repulsion = mean_of(cosine.relu().square(), labels.negative, world)
                loss = loss + settings.negative_weight * repulsion
        else:
            logits = self.logits(prediction.float(), targets)
            loss = -mean_of(F.logsigmoid(logits), labels.positive, world)
            loss = loss - mean_of(F.logsigmoid(-logits), labels.negative, world)
        return loss, labels.n_found.float().mean()

    def likeness(self, rows: Tensor, targets: Tensor) -> Tensor:
        """What the thresholds are for: cosines for CCSL, probabilities for CSSL, (b, B)."""
        if self.settings.kind == "ccsl":
            return cosines(rows, targets)
        return self.logits(rows, targets).sigmoid()

    def logits(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Logits of CSSL: (b, P), (B, P) -> (b, B)."""
        if self.settings.logits == "dot":
            return rows @ targets.T
        return self.settings.logit_scale * cosines(rows, targets) + self.settings.logit_bias


def label(likeness: Tensor, own: Tensor, settings: Settings) -> Labels:
    """Label pairs by their likeness (b, B); `own` marks the two views of one segment."""
    others = likeness.masked_fill(own, -torch.inf)
    n_found = (others > settings.theta_positive).sum(dim=1)
    n_kept = min(settings.max_positives, others.shape[1] - 1)
    values, columns = others.topk(n_kept, dim=1)
    positive = own.scatter(1, columns, values > settings.theta_positive)
    return Labels(positive | own, (likeness < settings.theta_negative) & ~own, n_found)


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines of all pairs: (b, P), (B, P) -> (b, B)."""
    return F.normalize(rows, dim=1) @ F.normalize(columns, dim=1).T


def mean_of(values: Tensor, mask: Tensor, world: World) -> Tensor:
    """Mean over the marked pairs of all processes, 0 if there are none: (b, B), (b, B) -> ().

    Each process divides its sum by the mean count: the mean over processes, as their gradients are
    averaged, is then that of all pairs.
    """
    count = world.mean(mask.sum().float())
    return (values * mask).sum() / count.clamp(min=1 / world.size)
