"""200 steps in each mode, loss by loss: a mode that computes something else shows here.

In float32 all modes take the same steps up to rounding, which grows from step to step; bfloat16
rounds more. Without dropout: a compiled network draws other numbers than an eager one.
"""

from gpu_stages.stage import Context, Row
from models.nn import encoder
from training import recipe as recipes
from training.data.corpus import Corpus
from training.run import Run

CHECKED = 20  # steps, in which rounding stays small
CLOSE, ROUGH = 1e-2, 0.05  # relative: of each loss at first, of the mean at the end
MODES = {
    "eager": ["run.compile=off", "run.capture=off"],
    "captured": ["run.compile=off", "run.capture=on"],
    "compiled": ["run.compile=on", "run.capture=off"],
    "compiled, captured": ["run.compile=on", "run.capture=on"],
}


def check(context: Context) -> list[Row]:
    """Each mode beside the eager one."""
    encoder.DROPOUT = 0.0  # in this process, which ends with the stage
    modes = dict(list(MODES.items())[:1]) if context.rehearse else MODES
    found = {name: _losses(context, "float32", settings) for name, settings in modes.items()}
    found["bfloat16"] = _losses(context, "bfloat16", list(modes.values())[-1])
    expected = found.pop("eager")
    return [_compared(name, losses, expected) for name, losses in found.items()]


def _losses(context: Context, precision: str, settings: list[str]) -> list[float]:
    sizes = ["run.batch_size=64", *context.small, f"run.precision={precision}"]
    recipe = recipes.load("byol-a-v2", [*sizes, "run.steps=1000", *settings])
    run = Run(recipe, Corpus(context.store), context.device)
    run.start()
    losses = [run.train_step()[0].loss.item() for _ in range(context.pick(200, 12))]
    run.batches.close()
    return losses


def _compared(name: str, losses: list[float], expected: list[float]) -> Row:
    pairs = list(zip(losses, expected, strict=True))
    first = max(abs(a - b) / abs(b) for a, b in pairs[:CHECKED])
    end = pairs[-len(pairs) // 4 :]
    drift = abs(sum(a - b for a, b in end)) / abs(sum(b for _, b in end))
    limit = ROUGH if name == "bfloat16" else CLOSE
    told = f"{first:.1e} apart in the first {len(pairs[:CHECKED])} steps, {drift:.1e} at the end"
    return Row(f"losses, {name} beside eager float32", told, first < limit and drift < ROUGH)
