"""One step of training, from segments to moved weights: BYOL's algorithm 1, on whole batches.

    batches.load, cut        data/batches.py: the step's clips -> segments (B, S)
      Sampler.batch            data/corpus.py: which clips and where in them, by seed and step
    objective.before_step    objectives/objective.py: this step's EMA decay
    views(segments)          views.py: log-mels, pre-normalisation, augmentation of each view
      RandomResizeCrop, ...    augment.py
      post_normalize           normalize.py
    forward(part of views)   objectives/METHOD.py: online, target, predictor -> loss (Outcome)
      Branch                   models/nn/encoder.py and the projector behind it
    backward, clip, move     optimizers.py, at the rate of schedules.py
    objective.after_step     the target moves towards the online network (EMA)

`Run.train_step` calls `load` and `before_step`; `Step` below does the rest. `loop.py` calls
`train_step` again and again, and between steps logs, probes and saves.

On a GPU `Step` is recorded once and replayed: nothing in it waits for the device or asks Python
for a number that changes from step to step. Letters: `B` batch (this process's rows), `P`
projection dim.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.capture import Inputs
from training.modes import Modes
from training.objectives.objective import Objective, Outcome
from training.views import Views

Result = tuple[Outcome, Tensor]


@dataclass
class Step:
    """A step of a run; called with what `batches.load` gives, it returns loss and gradient norm."""

    modes: Modes
    cut: Callable[[Inputs], Tensor]
    views: Views
    objective: Objective
    network: nn.Module
    """The objective as it is called: compiled, or wrapped for several processes, or both."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    """Scales the loss in float16; does nothing in other precisions."""

    generator: torch.Generator
    clip_norm: float
    parts: int

    def __post_init__(self) -> None:
        """Counters live on the device: read when the loop logs, so that no step waits for it."""
        device = self.modes.device
        self.trained = [p for p in self.objective.parameters() if p.requires_grad]
        self.steps_done = torch.zeros((), dtype=torch.int64, device=device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def __call__(self, inputs: Inputs) -> Result:
        """Take the step."""
        views = self.views(self.cut(inputs), self.generator)
        outcome = self._gradients(views)
        norm = self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.objective.after_step()  # EMA after the optimiser's step: BYOL, alg. 1
        self._watch(outcome.loss)
        return outcome, norm

    def forward(self, views: list[Tensor]) -> Outcome:
        """The objective in the run's precision."""
        precision = self.modes.precision
        reduced = precision != torch.float32
        with torch.autocast(self.modes.device.type, dtype=precision, enabled=reduced):
            outcome: Outcome = self.network(views)
        return outcome

    def _gradients(self, views: list[Tensor]) -> Outcome:
        """Go backward through each part of the batch; the last outcome, with the mean loss."""
        losses = []
        for number, part in enumerate(zip(*(v.chunk(self.parts) for v in views), strict=True)):
            with self._together(last=number == self.parts - 1):
                outcome = self.forward(list(part))
                if number == 0:  # not earlier: the forward pass would take the memory, cold
                    self.optimizer.zero_grad(set_to_none=True)
                self.scaler.scale(outcome.loss / self.parts).backward()  # type: ignore[no-untyped-call]
            losses.append(outcome.loss.detach())
        return outcome._replace(loss=torch.stack(losses).mean() if self.parts > 1 else losses[0])

    def _together(self, *, last: bool) -> AbstractContextManager[None]:
        """Let several processes add up their gradients with the last part alone, once a step."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _clip(self) -> Tensor:
        """The gradient's norm before it is cut down to the recipe's limit."""
        self.scaler.unscale_(self.optimizer)
        limit = self.clip_norm or float("inf")
        return nn.utils.clip_grad_norm_(self.trained, limit, foreach=True)

    def _watch(self, loss: Tensor) -> None:
        """Remember the first step whose loss was not finite."""
        self.steps_done += 1
        bad = ~loss.isfinite() & (self.first_bad < 0)
        self.first_bad.copy_(torch.where(bad, self.steps_done, self.first_bad))

    def state(self) -> list[Tensor]:
        """Every tensor that a step changes."""
        tensors = [*self.objective.parameters(), *self.objective.buffers(), *self.views.buffers()]
        for moments in self.optimizer.state.values():
            tensors += [value for value in moments.values() if isinstance(value, Tensor)]
        return [*tensors, self.steps_done, self.first_bad]
