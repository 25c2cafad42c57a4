"""Training speed beside a per-sample data flow, and beside the networks alone.

    python benchmarks/train_throughput.py [--store STORE] [--device cpu] [--batch 256] [--rounds 5]
        [--steps 1] [--set section.key=value ...]

Three candidates in turn, in one process, all with BYOL-A v2 and D = 3072:
- ours: `training.run.Run` as `viola train byol-a-v2` steps it;
- per sample: the data flow of the BYOL-A authors' v2 code, written anew from its description:
  log-mel for the batch, then mixup, crop and fader for one sample after the other in Python, four
  separate float32 forward passes, Adam and EMA parameter by parameter. Its segments come from our
  store;
- ceiling: the networks, losses and optimiser of ours on random tensors, no data, no augmentation.

Then the parts of a step of ours, each waited for, and memory. Without --store: noise of varied
colour, 1,000 clips of 1 to 10 s.
"""

import argparse
import random
import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import numpy as np
import soundfile as sf
import torch
import torch.nn.functional as F
from rich.console import Console
from timing import interleaved, spread
from torch import Tensor, nn

from models.nn.frontend import LogMel
from training import recipe as recipes
from training.augment import EPS, Draw
from training.data.corpus import Corpus, Sampler
from training.data.pcm import pcm_to_float
from training.data.prepare import prepare
from training.device import choose_device, prepare_backends
from training.normalize import post_normalize
from training.objectives.objective import Branch, regression_loss
from training.recipe import Recipe
from training.run import Run

console = Console(stderr=True)


class PerSample:
    """BYOL-A v2 as its authors' data flow has it: one sample at a time, float32."""

    def __init__(self, recipe: Recipe, corpus: Corpus, mean: float, std: float, device: str):
        self.recipe, self.corpus, self.device = recipe, corpus, torch.device(device)
        self.mean, self.std, self.step = mean, std, 0
        self.sampler = Sampler(corpus, {}, recipe.run.seed)
        self.frontend = LogMel().to(device)
        settings = recipe.objective
        self.online = Branch(recipe.encoder.build(), settings).to(device)
        features = self.online.encoder.features
        for pool in (2, 6):  # the paper rectifies before it pools
            features[pool], features[pool + 1] = features[pool + 1], features[pool]
        self.target = deepcopy(self.online).requires_grad_(False)
        self.predictor = nn.Sequential(
            nn.Linear(settings.projection_dim, settings.hidden_dim),
            nn.BatchNorm1d(settings.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(settings.hidden_dim, settings.projection_dim),
        ).to(device)
        trained = [*self.online.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.Adam(trained, lr=recipe.optimizer.lr)
        self.bank: deque[Tensor] = deque(maxlen=recipe.augment.mixup_bank)

    def __call__(self) -> None:
        with torch.no_grad():
            first, second = self.views()
        z1, z2 = self.online(first), self.online(second)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        with torch.no_grad():
            t1, t2 = self.target(first), self.target(second)
        loss = regression_loss(p1, t2) + regression_loss(p2, t1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        decay = self.recipe.objective.ema_decay
        for t, o in zip(self.target.parameters(), self.online.parameters(), strict=True):
            t.data = t.data * decay + (1 - decay) * o.data
        self.step += 1

    def views(self) -> tuple[Tensor, Tensor]:
        clips, rng = self.sampler.batch(self.step, self.recipe.run.batch_size)
        data = self.recipe.data
        pcm = torch.from_numpy(self.corpus.segments(clips, data.segment_samples, rng, "end"))
        x = (self.frontend(pcm_to_float(pcm.to(self.device))) - self.mean) / self.std
        pairs = [(self.augment(sample), self.augment(sample)) for sample in x]
        both = torch.cat([torch.stack(views) for views in zip(*pairs, strict=True)])
        both = (both - both.mean()) / both.std()
        first, second = both.chunk(2)
        return first, second

    def augment(self, x: Tensor) -> Tensor:
        return self.fade(self.crop(self.mix(x)))

    def mix(self, x: Tensor) -> Tensor:
        mixed = x
        if self.bank:
            ratio = self.recipe.augment.mixup_alpha * random.random()
            mixed = torch.log((1 - ratio) * x.exp() + ratio * random.choice(self.bank).exp() + EPS)
        self.bank.append(x)
        return mixed

    def crop(self, x: Tensor) -> Tensor:
        height, width = x.shape
        canvas_width = int(1.5 * width)
        canvas = torch.zeros(height, canvas_width, device=x.device)
        left = (canvas_width - width) // 2
        canvas[:, left : left + width] = x
        h = min(max(int(height * random.uniform(0.6, 1.5)), 1), height)
        w = min(max(int(width * random.uniform(0.6, 1.5)), 1), canvas_width)
        i, j = random.randint(0, height - h), random.randint(0, canvas_width - w)
        box = canvas[i : i + h, j : j + w]
        resized = F.interpolate(
            box[None, None], (height, width), mode="bicubic", align_corners=True
        )
        return resized[0, 0]

    def fade(self, x: Tensor) -> Tensor:
        head, tail = random.uniform(-1, 1), random.uniform(-1, 1)
        return x + torch.linspace(head, tail, x.shape[1], device=x.device)


class RandomViews(nn.Module):
    """Views that cost nothing: the same random tensors each time."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        shape = (run.recipe.run.batch_size, 64, run.recipe.data.segment_frames)
        self.normalize = run.views.normalize
        self.ready = [torch.randn(shape, device=run.device) for _ in range(2)]

    def forward(self, pcm: Tensor, generator: torch.Generator) -> list[Tensor]:
        return self.ready


class NoBatches:
    """No data at all."""

    def __init__(self, device: torch.device) -> None:
        self.nothing = (torch.zeros(1, device=device),)

    def load(self, step: int) -> tuple[Tensor, ...]:
        return self.nothing

    def cut(self, loaded: tuple[Tensor, ...]) -> Tensor:
        return loaded[0]

    def close(self) -> None: ...


def without_data(run: Run, like: Run) -> None:
    """Leave of a run that has not begun the networks, the loss and the optimiser alone."""
    run.batches.close()
    run.batches, run.one_step.views = NoBatches(run.device), RandomViews(like)  # type: ignore[assignment]


def synthetic_store(folder: Path, n_clips: int = 1000) -> Path:
    """Noise whose colour changes from clip to clip."""
    rng = np.random.default_rng(0)
    (folder / "noise").mkdir(parents=True)
    for number in range(n_clips):
        samples = rng.standard_normal(rng.integers(16_000, 160_000))
        samples = np.convolve(samples, rng.standard_normal(16), "same")
        sf.write(folder / "noise" / f"{number}.wav", 0.1 * samples, 16_000)
    prepare([folder / "noise"], folder / "store")
    return folder / "store"


def breakdown(run: Run, rounds: int) -> dict[str, list[float]]:
    """Seconds of each part of an eager step, each waited for."""
    times: dict[str, list[float]] = {}

    def timed(name: str, part: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = part()
        synchronize(run.device)
        times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    for _ in range(rounds):
        with torch.no_grad():
            pcm = timed("gather", lambda: run.batches.cut(run.batches.load(run.step)))
            x = timed("log-mel", lambda pcm=pcm: run.views.log_mel(pcm))
            draw = Draw(run.one_step.generator)
            views = timed(
                "augment",
                lambda x=x, draw=draw: post_normalize(
                    [run.views.augment(x, draw) for _ in range(run.views.n_views)]
                ),
            )
        outcome = timed("forward", lambda views=views: run.one_step.forward(views))
        run.optimizer.zero_grad(set_to_none=True)
        timed("backward", outcome.loss.backward)
        timed("optimiser", lambda: (run.one_step._clip(), run.optimizer.step()))
        timed("EMA", lambda: run.objective.after_step())
        run.step += 1
    return {name: values[2:] for name, values in times.items()}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeated(step: Callable[[], object], n: int, device: torch.device) -> Callable[[], None]:
    def call() -> None:
        for _ in range(n):
            step()
        synchronize(device)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1, help="of ours and the ceiling, a call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    settings = [f"run.batch_size={arguments.batch}", "run.steps=1000000", *arguments.settings]
    recipe = recipes.load("byol-a-v2", settings)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(arguments.store or synthetic_store(Path(folder)))
        measure(recipe, corpus, device, arguments.steps, arguments.rounds)


def measure(
    recipe: Recipe, corpus: Corpus, device: torch.device, n_steps: int, rounds: int
) -> None:
    ours, ceiling = Run(recipe, corpus, device), Run(recipe, corpus, device)
    ours.start()
    mean, std = ours.views.normalize.mean, ours.views.normalize.std
    reference = PerSample(recipe, corpus, mean, std, str(device))
    without_data(ceiling, ours)
    peaks = {}
    for name, step in (("ours", ours.train_step), ("per sample", reference)):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        for _ in range(5 if device.type == "cuda" else 1):
            step()
        synchronize(device)
        if device.type == "cuda":
            peaks[name] = torch.cuda.max_memory_allocated() - before
        console.print(f"{name}: warm")
    while device.type == "cuda" and len(reference.bank) < recipe.augment.mixup_bank:
        reference()

    def as_by_default() -> None:
        # the reference gets torch's default, in which convolutions run in TF32
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False
        reference()
        prepare_backends(device, deterministic=recipe.run.deterministic)

    steps = {"ours": n_steps, "per sample": 1, "ceiling": n_steps}
    calls = {"ours": ours.train_step, "per sample": as_by_default, "ceiling": ceiling.train_step}
    times = interleaved(
        {name: repeated(calls[name], steps[name], device) for name in calls}, rounds
    )
    rates = {
        name: [recipe.run.batch_size * steps[name] / t for t in values]
        for name, values in times.items()
    }
    report(ours, rates)
    print(
        f"\nOf the ceiling: {100 * median(rates['ours']) / median(rates['ceiling']):.0f} %; "
        f"times the per-sample flow: {median(rates['ours']) / median(rates['per sample']):.1f}"
    )
    print("\n| part of a step of ours | ms | share |\n|---|---|---|")
    parts = breakdown(ours, rounds + 2)
    total = sum(median(values) for values in parts.values())
    for name, values in parts.items():
        print(f"| {name} | {spread(values, 1000)} | {100 * median(values) / total:.1f} % |")
    ours.batches.close()
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nHost memory of this process at its peak: {host:,.0f} MiB")
    for name, peak in peaks.items():
        print(f"Device memory, {name}: {peak / 2**20:,.0f} MiB")


def report(run: Run, rates: dict[str, list[float]]) -> None:
    name = torch.cuda.get_device_name() if run.device.type == "cuda" else "CPU"
    print(
        f"{name}, {torch.get_num_threads()} threads, batch {run.recipe.run.batch_size}, "
        f"{run.modes.words()}, {type(run.batches).__name__}\n"
    )
    print("| | segments/s |\n|---|---|")
    for candidate, values in rates.items():
        print(f"| {candidate} | {spread(values, digits=1)} |")


if __name__ == "__main__":
    main()
