"""Which checkpoints a run may go on from: the same recipe but for what no step depends on."""

from typing import Any

from training.checkpoint import Checkpoint
from training.recipe import Recipe

# Settings that may change when a run goes on, because no step depends on them
FREE = {"name", "data.resident", "data.workers", "probe.tasks", "probe.kind", "probe.seconds"}
FREE |= {"run.compile", "run.capture", "run.deterministic", "run.batch_per_gpu"}
FREE |= {"run.tracker"}
FREE |= {
    f"{name}{unit}"
    for name in ("run.log_every", "run.checkpoint_every", "run.views_every", "probe.every")
    for unit in ("", "_s")
}
# And those that no step has depended on as long as the rate has not begun to fall
MOVES_END = {"run.epochs", "run.steps", "run.segments"}
MOVES_END |= {"optimizer.schedule", "optimizer.decay_steps"}


def refusal(saved: Checkpoint, recipe: Recipe, epoch_segments: float) -> str:
    """Why a run with this recipe cannot go on from a checkpoint, and what can; "" if it can."""
    if not saved.optimizer:
        return (
            "the checkpoint holds weights alone, and no run can be resumed from it: begin a "
            "new one with --init"
        )
    # A recipe from before a setting existed has the setting's default
    before = Recipe.model_validate(saved.recipe)
    free = set(FREE)
    falls_at = before.run.n_steps(epoch_segments) - decay_steps(before)
    if saved.step <= falls_at and not (_has_fixed_end(before) or _has_fixed_end(recipe)):
        free |= MOVES_END
    changed = changes(before, recipe, free)
    if not changed:
        return ""
    told = f"the checkpoint was made with other settings: {'; '.join(changed)}. "
    if recipe.run.batch_per_gpu and any(c.startswith("run.batch_size ") for c in changed):
        told += "Another number of processes needs another run.batch_per_gpu for the same batch. "
    return told + "Resume with those, or start a new run in another folder"


def decay_steps(recipe: Recipe) -> int:
    """Steps at the end in which the rate falls; 0 where that is not a part of the run."""
    settings = recipe.optimizer
    return settings.decay_steps if settings.schedule == "stable-decay" else 0


def _has_fixed_end(recipe: Recipe) -> bool:
    """Whether every step depends on how many steps there are."""
    return recipe.optimizer.schedule == "cosine" or recipe.objective.depends_on_length


def changes(before: Recipe, recipe: Recipe, free: set[str]) -> list[str]:
    """Settings that differ between two recipes, with both values; those in `free` may differ."""
    return _changes(before.model_dump(mode="json"), recipe.model_dump(mode="json"), free)


def _changes(
    saved: dict[str, Any], mine: dict[str, Any], free: set[str], prefix: str = ""
) -> list[str]:
    """`changes` of two recipes, or of a section of them."""
    changed = []
    for key, value in mine.items():
        name = prefix + key
        if isinstance(value, dict) and isinstance(saved.get(key), dict) and name != "data.weights":
            changed += _changes(saved[key], value, free, name + ".")
        elif saved.get(key) != value and name not in free:
            changed.append(f"{name} was {saved.get(key)}, is {value}")
    return changed
