"""What ends a run without being its own fault, in words: memory that runs out, a lost process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from training.recipe import Recipe
from training.run import TrainingError


@contextmanager
def failures_told(recipe: Recipe) -> Iterator[None]:
    """Say what to do where torch tells of its own inside alone.

    Raises:
        TrainingError: in place of its errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if told := _lost_process(error) or _out_of_memory(error, recipe):
            raise TrainingError(told) from error
        raise


def _lost_process(error: Exception) -> str:
    """The connection of a process that is gone breaks off in all others."""
    if not isinstance(error, dist.DistError) and "gloo" not in str(error):
        return ""
    return (
        "another process of this run has ended, or cannot be reached: what it said itself, or "
        "torchrun says of it, is the reason. Go on from the last checkpoint with the same command "
        "and --resume; where there is none yet, begin again"
    )


def _out_of_memory(error: Exception, recipe: Recipe) -> str:
    is_one = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if not is_one and "allocate memory" not in str(error):
        return ""
    return (
        f"out of memory with run.batch_size {recipe.run.batch_size} and encoder.embed_dim "
        f"{recipe.encoder.embed_dim}: lower run.batch_size first, or take it in parts with "
        "run.accumulate; then data.segment_s; data.resident=host keeps the store out of device "
        "memory; objective.hidden_dim and encoder.embed_dim come last"
    )
