"""The training loop: batch, views, loss, step, log, probe, checkpoint; what a run leaves behind."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from models.atomic import replacing
from models.labelled import tasks
from training import checkpoint, collapse, report
from training.checkpoint import Saver
from training.data.corpus import Corpus
from training.distributed import World
from training.evaluation.probe import Probe
from training.objectives.objective import Outcome
from training.plan import plan
from training.recipe import Recipe
from training.record import Record, environment, read_metrics
from training.run import Run, TrainingError, describe
from training.verdict import PROBE, untrained_score

N_PICTURED = 6  # segments in a picture of the views


def train(
    recipe: Recipe,
    corpus: Corpus,
    folder: Path,
    device: torch.device,
    *,
    world: World = World(),
    resume: bool = False,
    other_store: bool = False,
    init: Path | None = None,
    keep: int = 0,
    console: Console,
) -> bool:
    """Run `recipe` into `folder` until its last step, Ctrl-C or SIGTERM; False if it was stopped.

    The folder gets the last checkpoint, the best by the probe, the `keep` latest of those in
    between, and the record of the run; a report is written however the run ends.

    Raises:
        TrainingError: the folder holds a run already, a checkpoint does not fit, the run diverged,
            or memory ran out.
        TaskError: a task of the probe cannot be used.
    """
    last = folder / checkpoint.LAST
    if last.exists() and not resume:
        raise TrainingError(f"{folder} holds a run already; pass --resume, or name another folder")
    with _clear_memory_error(recipe):
        run = Run(recipe, corpus, device, world)
        if resume:
            run.restore(checkpoint.load(last), other_store=other_store)
            console.print(f"resumed at step {run.step} of {run.total_steps}")
        elif init is not None:
            run.begin_with(checkpoint.load(init))
        else:
            run.start()
        if not world.is_main:
            with _stop_on_signal() as stop:
                _follow(run, stop)
            return run.step >= run.total_steps
        probe = _probe(recipe, console)
        _describe_folder(run, folder)
        console.print(_opening(run), highlight=False)
        saver = Saver(folder, keep)
        with _stop_on_signal() as stop, Record(folder, run.step) as record:
            leader = _Leader(run, record, saver, probe, console)
            try:
                leader.go(stop)
            except BaseException as error:
                leader.end("failed", str(error) or type(error).__name__)
                raise
            finished = run.step >= run.total_steps
            leader.end("finished" if finished else "stopped")
    return finished


def dry_run(recipe: Recipe, corpus: Corpus, device: torch.device, world: World) -> Table:
    """The plan of a run, from steps that are not kept.

    Raises:
        TrainingError: as `train`.
    """
    with _clear_memory_error(recipe):
        return plan(Run(recipe, corpus, device, world))


@dataclass
class _Leader:
    """The process that logs, probes, saves and shows how far it is."""

    run: Run
    record: Record
    saver: Saver
    probe: Probe | None
    console: Console
    alarmed: set[str] = field(default_factory=set)
    saved_step: int = -1

    def go(self, stop: threading.Event) -> None:
        """Take steps until the last one or a signal, then save."""
        run, settings = self.run, self.run.recipe.run
        if self.probe and run.step == 0:
            self._ask(self.probe)  # of the untrained encoder: what training has to beat
        last_logged, logged_at, stopping = run.step, time.monotonic(), False
        with _progress(self.console) as progress:
            task = progress.add_task("train", total=run.total_steps, completed=run.step, status="")
            while run.step < run.total_steps and not stopping:
                outcome, norm = run.train_step()
                logs = run.step % settings.log_every == 0 or run.step == run.total_steps
                if logs:
                    values = self._measure(outcome, norm)
                    now = time.monotonic()
                    run.seconds += now - logged_at
                    rate = (run.step - last_logged) * settings.batch_size / (now - logged_at)
                    last_logged = run.step
                    self._log({**values, "segments_per_s": rate, "seconds": run.seconds})
                    status = _status(values, rate)
                    progress.update(task, status=status)
                    if not self.console.is_terminal:
                        self.console.print(f"step {run.step}/{run.total_steps}  {status}")
                    logged_at = now
                progress.update(task, completed=run.step)
                paused_at = time.monotonic()
                self._occasions(logs)
                if run.step % settings.checkpoint_every == 0:
                    self.save()
                logged_at += time.monotonic() - paused_at  # those are no training
                stopping = _all_stop(run, stop, logs)
        self.save()

    def _measure(self, outcome: Outcome, norm: Tensor) -> dict[str, float]:
        """The values of a logged step; reading them waits for the device."""
        run = self.run
        run.check_finite()
        values = run.values(outcome)
        values |= collapse.measure(outcome.projection, outcome.prediction, outcome.target)
        for message in collapse.alarms(values):
            self._alarm(message)
        at = run.step - 1
        return {
            **values,
            "lr": run.learning_rate(at),
            **run.objective.schedule(at, run.total_steps),
            "grad_norm": norm.item(),
        }

    def _log(self, values: dict[str, float]) -> None:
        self.record.scalars(self.run.step, values)

    def _alarm(self, message: str) -> None:
        """Say it when it begins; the record keeps it once a kind, too."""
        kind = message.split(" is ")[0].split(" have ")[0]
        if kind not in self.alarmed:
            self.alarmed.add(kind)
            self.record.alarm(self.run.step, message)
            self.console.print(f"alarm at step {self.run.step}: {message}", style="red")

    def _occasions(self, logs: bool) -> None:
        """Pictures of the views and the probe, when their step has come."""
        run, settings = self.run, self.run.recipe
        first_log = logs and run.step <= settings.run.log_every
        if first_log or run.step % settings.run.views_every == 0:
            self.record.views(run.step, run.view_stages(N_PICTURED))
        if self.probe and (run.step % settings.probe.every == 0 or run.step == run.total_steps):
            mean = self._ask(self.probe)
            self._compare(mean)
            if run.best is None or mean > run.best:
                run.best = mean
                self.save(best=True)

    def _ask(self, probe: Probe) -> float:
        """The probe's accuracies of the encoder as it is, noted and shown; their mean."""
        scores = probe(self.run.encoder())
        self._log({f"{PROBE}{task}": score for task, score in scores.items()})
        told = ", ".join(f"{task} {100 * score:.1f} %" for task, score in scores.items())
        self.console.print(f"step {self.run.step}: probe {told}", highlight=False)
        return math.fsum(scores.values()) / len(scores)

    def _compare(self, mean: float) -> None:
        """Say so where training has not made the encoder better than its first weights."""
        untrained = untrained_score(read_metrics(self.record.folder))
        if untrained is not None and mean < untrained:
            self.console.print(
                f"the probe is below the untrained encoder's {100 * untrained:.1f} %: early in a "
                "run that is common; if it stays so, train longer, lower optimizer.lr or look at "
                "the views in the report",
                style="yellow",
                highlight=False,
            )

    def save(self, *, best: bool = False) -> None:
        """A checkpoint of the state after the last step, unless the run has diverged."""
        if best or self.saved_step != self.run.step:
            self.run.check_finite()
            self.saver.save(self.run.checkpoint(), best=best)
            self.saved_step = self.run.step

    def end(self, state: str, message: str = "") -> None:
        """Wait for the checkpoint, then tell the record how the run ended."""
        run, folder = self.run, self.record.folder
        run.batches.close()
        self.saver.wait()
        self.saver.close()
        ending = {"state": state, "step": run.step, "total_steps": run.total_steps}
        _write_json(folder / "state.json", {**ending, "message": message})
        self.record.close()
        path = report.write(folder)
        self.console.print(f"report: {path}", highlight=False)


def _follow(run: Run, stop: threading.Event) -> None:
    """What the processes beside the first one do: the same steps."""
    settings, stopping = run.recipe.run, False
    while run.step < run.total_steps and not stopping:
        outcome, _ = run.train_step()
        logs = run.step % settings.log_every == 0 or run.step == run.total_steps
        if logs:
            run.check_finite()
            run.values(outcome)
        stopping = _all_stop(run, stop, logs)
    run.batches.close()


def _all_stop(run: Run, stop: threading.Event, logs: bool) -> bool:
    """Whether this is the last step; several processes agree on it where they log."""
    if run.world.size == 1:
        return stop.is_set()
    return logs and run.world.any(stop.is_set(), run.device)


def _probe(recipe: Recipe, console: Console) -> Probe | None:
    settings = recipe.probe
    if not settings.tasks:
        return None
    console.print(f"reading {len(settings.tasks)} tasks for the probe")
    return Probe(
        [tasks.load(Path(path), settings.seconds) for path in settings.tasks], settings.kind
    )


def _describe_folder(run: Run, folder: Path) -> None:
    """What the run is, before its first step."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "recipe.json", run.recipe.model_dump(mode="json"))
    _write_json(folder / "environment.json", environment())
    _write_json(folder / "data.json", describe(run.corpus))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _opening(run: Run) -> str:
    corpus, normalize = run.corpus, run.views.normalize
    precision = str(run.precision).removeprefix("torch.")
    how = [precision, f"on {run.device}"]
    how += ["compiled"] if run.compiles else []
    how += ["as a CUDA graph"] if run.captures else []
    how += [f"in {run.world.size} processes"] if run.world.size > 1 else []
    return (
        f"{corpus.n_clips} clips, {corpus.hours:.2f} h; log-mel mean {normalize.mean:.4f}, std "
        f"{normalize.std:.4f}; {run.total_steps} steps of {run.recipe.run.batch_size} segments, "
        f"{', '.join(how)}"
    )


def _status(values: dict[str, float], rate: float) -> str:
    return (
        f"loss {values['loss']:.3f}  std {values['projection_std']:.2f}  rank "
        f"{values['effective_rank']:.0f}  {rate:.0f} segments/s"
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
def _clear_memory_error(recipe: Recipe) -> Iterator[None]:
    """Running out of memory says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not out_of_memory and "allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"out of memory with run.batch_size {recipe.run.batch_size} and encoder.embed_dim "
            f"{recipe.encoder.embed_dim}: lower run.batch_size first; data.resident=host keeps the "
            "store out of device memory; objective.hidden_dim and encoder.embed_dim come last"
        ) from error


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
