"""The training loop: PCM -> log-mel -> views -> objective -> optimiser -> EMA -> checkpoint."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from models.atomic import replacing
from models.nn.frontend import N_MELS, LogMel, Normalize
from training import checkpoint
from training.augment import Mixup, RandomLinearFader, RandomResizeCrop
from training.checkpoint import Checkpoint
from training.corpus import Corpus, Sampler
from training.normalize import pcm_to_float, post_normalize, statistics
from training.objectives.byol import BYOL
from training.recipe import Recipe

CHECKPOINT_NAME = "checkpoint.pt"


class TrainingError(RuntimeError):
    """A run that cannot start or cannot go on."""


class Augment(nn.Module):
    """Mixup, random resize crop, fader, in this order, each where the recipe asks for it."""

    def __init__(self, recipe: Recipe, n_mels: int) -> None:
        super().__init__()
        settings = recipe.augment
        self.steps = nn.ModuleList()
        if settings.mixup_alpha > 0:
            frames = recipe.data.segment_frames
            self.steps.append(Mixup(settings.mixup_alpha, settings.mixup_bank, n_mels, frames))
        if settings.resize_crop:
            self.steps.append(RandomResizeCrop(settings.crop_scale, settings.canvas_time))
        if settings.fader_gain > 0:
            self.steps.append(RandomLinearFader(settings.fader_gain))

    def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One view of a batch of normalised log-mels: (B, F, T) -> (B, F, T)."""
        for step in self.steps:
            x = step(x, generator)
        return x


class Run:
    """One training run: networks, place in the schedule, how it is saved and resumed."""

    def __init__(self, recipe: Recipe, corpus: Corpus, device: torch.device) -> None:
        self.recipe, self.corpus, self.device = recipe, corpus, device
        self.sampler = Sampler(corpus, recipe.data.weights, recipe.run.seed)
        self.total_steps = recipe.run.n_steps(corpus.n_clips)
        self.precision = _precision(recipe.run.precision, device)
        self.step = 0
        self.train_seconds = 0.0
        self.commit = checkpoint.git_commit()
        self.history: list[dict[str, float]] = []
        if device.type == "cuda":
            # TF32 would blur the log-mel; what is to be fast runs in bfloat16
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.manual_seed(recipe.run.seed)
        self.frontend = LogMel().to(device)
        settings = recipe.objective
        self.objective = BYOL(
            recipe.encoder.build(), settings.hidden_dim, settings.projection_dim, settings.ema_decay
        ).to(device)
        # 1.4 times as fast on a CPU
        self.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.augment = Augment(recipe, N_MELS).to(device)
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            trained, lr=recipe.optimizer.lr, weight_decay=recipe.optimizer.weight_decay, fused=True
        )
        self.normalize: Normalize

    def measure_statistics(self) -> None:
        """Pre-normalisation statistics of this store, once before the first step."""
        data = self.recipe.data
        mean, std = statistics(
            self.corpus, self.sampler, self.frontend, data.segment_samples, data.pad, self.device
        )
        if std < 1e-3:
            raise TrainingError(
                f"the log-mels of this store have a deviation of {std:.2g}: silence?"
            )
        self.normalize = Normalize(mean, std)

    def batch(self, step: int) -> Tensor:
        """The PCM segments of a step, int16 (B, S) in host memory: the same whatever ran before."""
        clips, rng = self.sampler.batch(step, self.recipe.run.batch_size)
        data = self.recipe.data
        pcm: NDArray[np.int16] = self.corpus.segments(clips, data.segment_samples, rng, data.pad)
        tensor = torch.from_numpy(pcm)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    @torch.no_grad()
    def views(self, pcm: Tensor) -> list[Tensor]:
        """Segments (B, S) -> the objective's augmented, post-normalised views, each (B, F, T)."""
        generator = torch.Generator(self.device).manual_seed(_seed(self.recipe.run.seed, self.step))
        waveform = pcm_to_float(pcm.to(self.device, non_blocking=True))
        log_mel = self.normalize(self.frontend(waveform))
        views = [self.augment(log_mel, generator) for _ in range(self.objective.n_views)]
        return post_normalize(views)

    def train_step(self, pcm: Tensor) -> dict[str, Tensor]:
        """One optimiser step on a batch of segments; the scalars stay on the device."""
        torch.manual_seed(_seed(self.recipe.run.seed, self.step) + 1)  # dropout's
        views = self.views(pcm)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16
        ):
            loss, logs = self.objective(views)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.objective.after_step()  # EMA after the optimiser's step, as in BYOL alg. 1
        self.step += 1
        return {"loss": loss.detach(), **logs}

    def checkpoint(self) -> Checkpoint:
        """The state after the last step."""
        return Checkpoint(
            recipe=self.recipe.model_dump(mode="json"),
            mean=self.normalize.mean,
            std=self.normalize.std,
            step=self.step,
            train_seconds=self.train_seconds,
            corpus=_describe(self.corpus),
            commit=self.commit,
            objective=self.objective.state_dict(),
            augment=self.augment.state_dict(),
            optimizer=self.optimizer.state_dict(),
            history=self.history,
        )

    def save(self, path: Path) -> None:
        """Replace the checkpoint, unless the run has diverged: the last good one stays then.

        Raises:
            TrainingError: a weight is not a finite number.
        """
        trained = [p.detach() for p in self.objective.parameters() if p.requires_grad]
        if not torch.stack(torch._foreach_norm(trained)).isfinite().all():
            raise TrainingError(
                f"a weight is not finite at step {self.step}; the checkpoint before it is kept. "
                "Lower optimizer.lr"
            )
        checkpoint.save(self.checkpoint(), path)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint of the same recipe and store."""
        mine = self.recipe.model_dump(mode="json")
        changed = _changes(saved.recipe, mine)
        if changed:
            raise TrainingError(
                "the checkpoint was made with other settings: "
                + "; ".join(changed)
                + ". Resume with those, or start a new run in another folder"
            )
        if saved.corpus["fingerprint"] != self.corpus.fingerprint:
            raise TrainingError(
                f"the checkpoint was made on another store, of {saved.corpus['clips']} clips. "
                "Resume on that one, or start a new run in another folder"
            )
        self.normalize = Normalize(saved.mean, saved.std)
        self.objective.load_state_dict(saved.objective)
        self.augment.load_state_dict(saved.augment)
        self.optimizer.load_state_dict(dict(saved.optimizer))
        self.step, self.train_seconds = saved.step, saved.train_seconds
        self.history, self.commit = list(saved.history), saved.commit


def train(
    recipe: Recipe,
    corpus: Corpus,
    folder: Path,
    device: torch.device,
    resume: bool,
    console: Console,
) -> bool:
    """Run `recipe` into `folder` until its last step or Ctrl-C; False if it was interrupted.

    Raises:
        TrainingError: the folder holds a run already, a checkpoint does not fit, or the loss is
            not finite.
    """
    path = folder / CHECKPOINT_NAME
    if path.exists() and not resume:
        raise TrainingError(f"{folder} holds a run already; pass --resume, or name another folder")
    run = Run(recipe, corpus, device)
    if resume:
        run.restore(checkpoint.load(path))
        console.print(f"resumed at step {run.step} of {run.total_steps}")
    else:
        run.measure_statistics()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "recipe.json") as temporary:
        temporary.write_text(recipe.model_dump_json(indent=2) + "\n")
    console.print(
        f"{corpus.n_clips} clips, {corpus.hours:.2f} h; log-mel mean {run.normalize.mean:.4f}, "
        f"std {run.normalize.std:.4f}; {run.total_steps} steps of {recipe.run.batch_size} "
        f"segments, {str(run.precision).removeprefix('torch.')} on {device}"
    )
    with _stop_on_signal() as stop, SummaryWriter(str(folder)) as writer:
        _steps(run, path, writer, stop, console)
    run.save(path)
    return run.step >= run.total_steps


def _steps(
    run: Run, path: Path, writer: SummaryWriter, stop: threading.Event, console: Console
) -> None:
    settings = run.recipe.run
    with _progress(console) as progress, ThreadPoolExecutor(1) as loader:
        task = progress.add_task("train", total=run.total_steps, completed=run.step, status="")
        started, logged_at = time.monotonic() - run.train_seconds, run.step
        logged_time = time.monotonic()
        upcoming: Future[Tensor] = loader.submit(run.batch, run.step)
        while run.step < run.total_steps and not stop.is_set():
            pcm = upcoming.result()
            upcoming = loader.submit(run.batch, run.step + 1)
            scalars = run.train_step(pcm)
            progress.update(task, completed=run.step)
            if run.step % settings.log_every == 0 or run.step == run.total_steps:
                # reading the scalars waits for the device
                values = {name: value.item() for name, value in scalars.items()}
                now = time.monotonic()
                rate = (run.step - logged_at) * settings.batch_size / (now - logged_time)
                logged_at, logged_time = run.step, now
                values["segments_per_s"] = rate
                if not np.isfinite(values["loss"]):
                    raise TrainingError(
                        f"the loss is {values['loss']} at step {run.step}; the last checkpoint is "
                        "kept. Lower optimizer.lr"
                    )
                _log(run, values, writer)
                progress.update(task, status=_status(values))
                if not console.is_terminal:
                    console.print(f"step {run.step}/{run.total_steps}  {_status(values)}")
            run.train_seconds = time.monotonic() - started
            if run.step % settings.checkpoint_every == 0:
                run.save(path)


def _log(run: Run, values: dict[str, float], writer: SummaryWriter) -> None:
    run.history.append({"step": float(run.step), **values})
    for name, value in values.items():
        writer.add_scalar(f"train/{name}", value, run.step)


def _status(values: dict[str, float]) -> str:
    return (
        f"loss {values['loss']:.3f}  std {values['projection_std']:.2f}  "
        f"{values['segments_per_s']:.0f} segments/s"
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the step under way ends first.

    A second signal acts as usual.
    """
    stop = threading.Event()
    previous: dict[signal.Signals, Any] = {}

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, previous[signal.Signals(number)])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, request_stop)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _seed(seed: int, step: int) -> int:
    """A seed for each step, far from those of its neighbours."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(2))


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one.

    Raises:
        TrainingError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError):  # torch built without CUDA asserts
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise TrainingError(f"device {name!r} cannot be used here; choose cpu, cuda or auto")
    return device


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    """Bfloat16 where the hardware computes in it, unless the recipe says otherwise."""
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def _describe(corpus: Corpus) -> dict[str, Any]:
    hours = np.bincount(corpus.source_of, corpus.lengths, len(corpus.sources)) / 16_000 / 3600
    return {
        "fingerprint": corpus.fingerprint,
        "clips": int(corpus.n_clips),
        "hours": float(corpus.hours),
        "sources": dict(zip(corpus.sources, hours.tolist(), strict=True)),
    }


def _changes(saved: dict[str, Any], mine: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ between two recipes; run lengths and intervals may change on the way."""
    free = {"run.epochs", "run.steps", "run.log_every", "run.checkpoint_every", "name"}
    changed = []
    for key, value in mine.items():
        name = prefix + key
        if isinstance(value, dict) and isinstance(saved.get(key), dict) and name != "data.weights":
            changed += _changes(saved[key], value, name + ".")
        elif saved.get(key) != value and name not in free:
            changed.append(f"{name} was {saved.get(key)}, is {value}")
    return changed
