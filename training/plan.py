"""What a run would be: data, steps, parameters, memory, and the time it takes, from real steps."""

import statistics
import time

import torch
from rich.table import Table
from torch import Tensor, nn

from training.run import Run
from training.speed import peak_memory_mib

WARM_UP = 3
MEASURED = 20


def plan(run: Run) -> Table:
    """Take some steps of a run that has begun, and tell what the whole would take; none is kept."""
    seconds = _step_seconds(run)
    run.batches.close()
    settings, total = run.recipe.run, run.total_steps
    step_s = statistics.median(seconds)
    segments = total * settings.batch_size
    table = Table(show_header=False, box=None, title=f"{run.recipe.name}: the plan")
    for name, value in {
        "data": f"{run.corpus.n_clips:,} clips, {run.corpus.hours:,.2f} h from "
        f"{len(run.corpus.sources)} sources, {type(run.batches).__name__.lower()}",
        "steps": f"{total:,} of {settings.batch_size} segments of {run.recipe.data.segment_s:g} s",
        "segments": f"{segments:,}: {segments / run.corpus.n_clips:,.1f} of each clip",
        "parameters": _parameters(run),
        "device": f"{_device_name(run.device)}, {run.modes.words()}",
        "memory": _memory(run),
        "a checkpoint": f"{_mib(_checkpoint_bytes(run)):,.0f} MiB",
        "a step": f"{1000 * step_s:.1f} ms: {settings.batch_size / step_s:,.0f} segments/s, median "
        f"of {len(seconds)} steps",
        "expected time": _duration(total * step_s),
    }.items():
        table.add_row(name, value)
    return table


def _step_seconds(run: Run) -> list[float]:
    """Seconds of each measured step; fewer if the run is shorter."""
    times = []
    for _ in range(min(WARM_UP + MEASURED, run.total_steps)):
        start = time.perf_counter()
        run.train_step()
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        times.append(time.perf_counter() - start)
    return times[WARM_UP:] or times


def _parameters(run: Run) -> str:
    online, predictor = run.objective.online, run.objective.predictor
    parts = {"encoder": online.encoder, "projector": online.projector, "predictor": predictor}
    counts = {name: _count(part) for name, part in parts.items()}
    each = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"{sum(counts.values()):,} trained ({each})"


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _memory(run: Run) -> str:
    """Peak of the measured steps: of the device, and of this process on the host."""
    host = f"host {peak_memory_mib(torch.device('cpu')):,.0f} MiB"
    if run.device.type != "cuda":
        return host
    return f"device {peak_memory_mib(run.device):,.0f} MiB, {host}"


def _checkpoint_bytes(run: Run) -> int:
    tensors: list[Tensor] = [*run.objective.state_dict().values(), *run.views.buffers()]
    for moments in run.optimizer.state.values():
        tensors += [value for value in moments.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _mib(n_bytes: int) -> float:
    return n_bytes / (1 << 20)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
