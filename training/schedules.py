"""What changes from step to step by plan: the learning rate and the decay of the target's EMA."""

import math

from training.recipe import Objective, Optimizer


def learning_rate(settings: Optimizer, step: int, total_steps: int) -> float:
    """Linear warm-up to `lr`, then constant, or a half cosine down to 0 (arXiv 2006.07733, 3.3)."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    progress = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    return settings.lr * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def ema_decay(settings: Objective, step: int, total_steps: int) -> float:
    """Constant, or 1 - (1 - decay) (cos(pi k / K) + 1) / 2: from `ema_decay` to 1 (BYOL, 3.3)."""
    if settings.ema_schedule == "constant":
        return settings.ema_decay
    progress = min(1.0, step / total_steps)
    return 1 - (1 - settings.ema_decay) * (math.cos(math.pi * progress) + 1) / 2
