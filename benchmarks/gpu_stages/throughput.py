"""Segments a second of v1, v2 and the light encoder, in each mode, beside two yardsticks.

The authors' way (one sample at a time, float32) and the ceiling (networks, loss and optimiser on
random views) are measured for v2 in the same process.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from train_throughput import PerSample, without_data

from gpu_stages.stage import Context, Row
from training import recipe as recipes
from training.data.corpus import Corpus
from training.device import prepare_backends
from training.run import Run
from training.speed import flops_per_segment, peak_flops

MODES = {
    "compiled, captured": ["run.compile=on", "run.capture=on"],
    "captured": ["run.compile=off", "run.capture=on"],
    "compiled": ["run.compile=on", "run.capture=off"],
    "eager": ["run.compile=off", "run.capture=off"],
}
FAST = ["run.deterministic=false", "run.steps=1000000", "data.log_mels=false"]
NETWORKS = {"v1": "byol-a-v1", "v2": "byol-a-v2", "light": "cpu"}
TIMES, SHARE = 20.0, 0.7  # promised: of the authors' flow, of the ceiling
ROUNDS, REHEARSED = 3, 1


def check(context: Context) -> list[Row]:
    """All networks in all modes, then the yardsticks."""
    corpus, rows, best = Corpus(context.store), [], 0.0
    batch = f"run.batch_size={context.pick(512, 8)}"
    modes = dict(list(MODES.items())[-1:]) if context.rehearse else MODES
    for name, recipe in NETWORKS.items():
        for mode, settings in modes.items():
            loaded = recipes.load(recipe, [batch, *context.small, *FAST, *settings])
            run = Run(loaded, corpus, context.device)
            run.start()
            rate = _rate(run.train_step, context, loaded.run.batch_size)
            rows.append(Row(f"{name}, {mode}", f"{rate:,.0f} segments/s; {_use(run, rate)}"))
            rows += [
                Row(f"{name}, {mode}: not {left_out}", why, False)
                for left_out, why in run.modes.why_not.items()
                if left_out in mode
            ]
            best = max(best, rate) if name == "v2" else best
            run.batches.close()
            _free(context.device)
    return rows + _yardsticks(context, corpus, batch, best)


def _yardsticks(context: Context, corpus: Corpus, batch: str, best: float) -> list[Row]:
    """How the best of v2 compares."""
    recipe = recipes.load("byol-a-v2", [batch, *context.small, *FAST])
    first, ceiling = Run(recipe, corpus, context.device), Run(recipe, corpus, context.device)
    first.start()
    without_data(ceiling, first)
    top = _rate(ceiling.train_step, context, recipe.run.batch_size)
    normalize = first.views.normalize
    authors = PerSample(recipe, corpus, normalize.mean, normalize.std, str(context.device))
    first.batches.close()
    torch.backends.cudnn.allow_tf32 = True  # torch's default, which theirs has
    torch.backends.cudnn.deterministic = False
    slow = _rate(authors, context, recipe.run.batch_size)
    prepare_backends(context.device, deterministic=False)
    promised = not context.rehearse
    return [
        Row("v2, ceiling", f"{top:,.0f} segments/s"),
        Row("v2, the authors' flow", f"{slow:,.0f} segments/s"),
        Row(
            "of the ceiling", f"{100 * best / top:.0f} %", best / top >= SHARE if promised else None
        ),
        Row(
            "times the authors' flow",
            f"{best / slow:.1f}",
            best / slow >= TIMES if promised else None,
        ),
    ]


def _rate(step: Callable[[], object], context: Context, batch: int) -> float:
    """Segments a second, the median of some rounds of steps."""
    n_steps = context.pick(20, 2)
    for _ in range(context.pick(5, 1)):
        step()
    rates = []
    for _ in range(context.pick(ROUNDS, REHEARSED)):
        _wait(context.device)
        start = time.perf_counter()
        for _ in range(n_steps):
            step()
        _wait(context.device)
        rates.append(n_steps * batch / (time.perf_counter() - start))
    return median(rates)


def _use(run: Run, rate: float) -> str:
    peak, source = peak_flops(run.device, run.modes.precision)
    return f"MFU {100 * rate * flops_per_segment(run) / peak:.0f} % ({source})"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()
