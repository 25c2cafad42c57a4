"""A trace of some steps of a run, for chrome://tracing, Perfetto or TensorBoard."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

NAME = "trace.json.gz"
SKIPPED = 3  # the first steps compile, allocate and choose algorithms
WARM_UP = 1


@contextmanager
def profiled(folder: Path, n_steps: int, device: torch.device) -> Iterator[profile | None]:
    """Trace `n_steps` steps into the run's folder; call `step()` of what is yielded after each.

    With 0 steps nothing is traced and None is yielded. A run that is shorter leaves the steps that
    it had.
    """
    if not n_steps:
        yield None
        return
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    plan = schedule(skip_first=SKIPPED, wait=0, warmup=WARM_UP, active=n_steps, repeat=1)

    def write(traced: profile) -> None:
        traced.export_chrome_trace(str(folder / NAME))

    with profile(activities=activities, schedule=plan, on_trace_ready=write) as running:
        yield running
