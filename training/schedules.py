"""What changes from step to step by plan: the learning rate and the decay of a target's EMA."""

import math
from typing import Literal, Protocol

Schedule = Literal["constant", "cosine"]
RateSchedule = Literal["constant", "cosine", "stable-decay"]


class RateSettings(Protocol):
    """What a recipe's section of the optimiser says of its learning rate."""

    @property
    def lr(self) -> float:
        """The highest rate."""
        ...

    @property
    def schedule(self) -> RateSchedule:
        """How it falls."""
        ...

    @property
    def warmup_steps(self) -> int:
        """Steps in which it rises."""
        ...

    @property
    def decay_steps(self) -> int:
        """Steps in which it falls at the end, of `stable-decay`."""
        ...


def learning_rate(settings: RateSettings, step: int, total_steps: int) -> float:
    """Linear warm-up to `lr`, then by the schedule.

    Constant; a half cosine down to 0 (arXiv 2006.07733, 3.3); or constant and, over the last steps,
    down to 0 as 1 - sqrt of their share (arXiv 2405.18392, sec. 3).
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "stable-decay":
        left = total_steps - step
        share = 1 - min(1.0, max(0, left) / max(1, settings.decay_steps))
        return settings.lr * (1 - math.sqrt(share))
    progress = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    return settings.lr * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def ema_decay(base: float, schedule: Schedule, step: int, total_steps: int) -> float:
    """Constant, or 1 - (1 - base) (cos(pi k / K) + 1) / 2: from `base` to 1 (BYOL, 3.3)."""
    if schedule == "constant":
        return base
    progress = min(1.0, step / total_steps)
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2
