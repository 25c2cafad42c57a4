"""The training loop: step, log, picture, probe, checkpoint; what a run leaves behind."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from torch.profiler import profile as profile_

from models.atomic import replacing
from models.labelled import tasks
from models.progress import tracked
from training import checkpoint, collapse, profiling, report, warm_start
from training.agenda import Agenda, Due
from training.checkpoint import Saver
from training.data.corpus import Corpus
from training.distributed import World
from training.evaluation.probe import Probe
from training.failures import failures_told
from training.folder import full_disk_told, sole_run
from training.objectives.objective import Outcome
from training.plan import plan
from training.probing import Prober
from training.recipe import Recipe
from training.record import RECIPE_NAME, Record, environment, read_metrics
from training.run import Run, TrainingError, describe
from training.signals import stop_on_signal
from training.speed import Meter, flops_per_segment
from training.step import Result
from training.trackers import open_tracker
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
    profile: int = 0,
    console: Console,
) -> bool:
    """Run `recipe` into `folder` until its last step or a signal to stop; False if it was stopped.

    The folder gets the last checkpoint, the best by the probe, the `keep` latest of those in
    between, a trace of `profile` steps, and the record of the run; a report is written however the
    run ends.

    Raises:
        TrainingError: the folder holds a run already, another process trains in it, a checkpoint
            does not fit, the run diverged, memory ran out, or another of its processes is gone.
        TaskError: a task of the probe cannot be used.
        RecordError: the disk is full.
    """
    last = folder / checkpoint.LAST
    with ExitStack() as held, failures_told(recipe), stop_on_signal() as stop:
        world.from_main(lambda: held.enter_context(sole_run(folder)))
        begun = world.from_main(last.exists)
        if begun and not resume:
            raise TrainingError(
                f"{folder} holds a run already; pass --resume, or name another folder"
            )
        if resume and not begun:
            raise TrainingError(
                f"no checkpoint at {last}: without --resume the run begins, also again where it "
                "ended before its first one"
            )
        run = Run(recipe, corpus, device, world, _follow_on(console))
        if resume:
            saved = world.from_main(lambda: checkpoint.load(last))
            run.restore(saved, other_store=other_store)
            console.print(f"resumed at step {run.step} of {run.total_steps}")
        else:
            _begin(run, init)
        if run.recipe.run.batch_size != recipe.run.batch_size:
            console.print(f"batches of {run.recipe.run.batch_size} for {world.size} processes")
        flops = flops_per_segment(run)
        run.settle()
        if not world.is_main:
            _other_process(run, stop)
        else:
            with full_disk_told(folder):
                _main_process(run, folder, flops, keep, profile, stop, console)
        world.wait()  # before leaving: the first process still writes
    return run.step >= run.total_steps


def dry_run(
    recipe: Recipe,
    corpus: Corpus,
    device: torch.device,
    world: World,
    *,
    init: Path | None = None,
) -> Table:
    """The plan of a run, from steps that are not kept.

    Raises:
        TrainingError: as `train`.
    """
    with failures_told(recipe):
        run = Run(recipe, corpus, device, world)
        _begin(run, init)
        return plan(run)


def _begin(run: Run, init: Path | None) -> None:
    """Begin with new networks, or with the weights in a file."""
    if init is None:
        run.start()
    else:
        warm_start.begin(run, run.world.from_main(lambda: warm_start.read(init)))


def _steps(run: Run, stop: Event) -> Iterator[tuple[Result, Due]]:
    """Steps until the last one or a stop, each with what is due after it, in all processes.

    Where the first process has work of its own to do, the others wait for it.
    """
    agenda = Agenda(run.recipe, run.step, run.total_steps, run.world, run.device)
    while run.step < run.total_steps:
        result = run.train_step()
        due = agenda.after(run.step, stop.is_set())
        asked = time.monotonic()
        yield result, due
        if due.alone:
            run.world.wait()
        agenda.paused(time.monotonic() - asked)
        if due.stop:
            return


def _other_process(run: Run, stop: Event) -> None:
    """Take the same steps as the first process, in one beside it."""
    run.world.wait()
    for (outcome, _), due in _steps(run, stop):
        if due.log:
            run.check_finite()
            run.values(outcome)
    run.batches.close()


def _main_process(
    run: Run, folder: Path, flops: float, keep: int, profile: int, stop: Event, console: Console
) -> None:
    """Train in the first process, which also logs, probes, saves and reports."""
    probe = _probe(run.recipe, console)
    _describe_folder(run, folder)
    console.print(_opening(run), highlight=False)
    for mode, reason in run.modes.why_not.items():
        console.print(f"not {mode}: {reason}", highlight=False, markup=False)
    saver, prober = Saver(folder, keep), Prober(probe, run.device) if probe else None
    with (
        Record(folder, run.step, open_tracker(run.recipe, folder)) as record,
        profiling.profiled(folder, profile, run.device) as trace,
    ):
        main = _MainProcess(run, record, saver, prober, Meter(run, flops), console)
        try:
            with failures_told(run.recipe):
                main.go(stop, trace)
        except BaseException as error:
            main.end("failed", str(error) or type(error).__name__)
            raise
        finished = run.step >= run.total_steps
        main.end("finished" if finished else "stopped")


@dataclass
class _MainProcess:
    """The process that logs, probes, saves and shows how far it is."""

    run: Run
    record: Record
    saver: Saver
    prober: Prober | None
    meter: Meter
    console: Console
    alarmed: set[str] = field(default_factory=set)
    saved_step: int = -1

    def go(self, stop: Event, trace: profile_ | None = None) -> None:
        """Take steps until the last one or a signal, then save."""
        run = self.run
        if run.step == 0:
            self._ask()  # about the untrained encoder: what training has to beat
        run.world.wait()
        self.meter = Meter(run, self.meter.flops)  # anew: the time until here was no training
        with _progress(self.console) as progress:
            task = progress.add_task("train", total=run.total_steps, completed=run.step, status="")
            for (outcome, norm), due in _steps(run, stop):
                if due.log:
                    values = {**self._measure(outcome, norm), **self.meter.read()}
                    self.record.scalars(run.step, values)
                    self._show(progress, task, values)
                progress.update(task, completed=run.step)
                paused_at = time.monotonic()
                self._do_what_is_due(due)
                self.meter.paused(time.monotonic() - paused_at)  # that was no training
                if trace:
                    trace.step()
        self.save()
        self._take_answers(wait=True)

    def _measure(self, outcome: Outcome, norm: Tensor) -> dict[str, float]:
        """The values of a logged step; reading them waits for the device."""
        run = self.run
        run.check_finite()
        values = run.values(outcome)
        values |= collapse.measure(outcome.projection, outcome.prediction, outcome.target)
        for message in collapse.alarms(values, len(outcome.projection)):
            self._alarm(message)
        at = run.step - 1
        values |= {"lr": run.learning_rate(at), **run.objective.schedule(at, run.total_steps)}
        values |= {"grad_norm": norm.item()}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _show(self, progress: Progress, task: Any, values: dict[str, float]) -> None:
        """A line of how it goes, in the bar or, where there is no terminal, one below another."""
        status = _status(values)
        progress.update(task, status=status)
        if not self.console.is_terminal:
            self.console.print(f"step {self.run.step}/{self.run.total_steps}  {status}")

    def _alarm(self, message: str) -> None:
        """Print and record an alarm, once for each kind."""
        kind = message.split(" is ")[0].split(" have ")[0]
        if kind not in self.alarmed:
            self.alarmed.add(kind)
            self.record.alarm(self.run.step, message)
            self.console.print(f"alarm at step {self.run.step}: {message}", style="red")

    def _do_what_is_due(self, due: Due) -> None:
        """Pictures of the views, the probe and the checkpoint, when they are due."""
        run = self.run
        if due.views:
            self.record.views(run.step, run.view_stages(N_PICTURED))
        if due.probe:
            self._ask()
        elif due.log:
            self._take_answers()
        if due.save:
            self.save()

    def _ask(self) -> None:
        """Ask the probe about the encoder as it is; its checkpoint is kept until it answers."""
        if self.prober is None:
            return
        self._take_answers(wait=True)  # before the next candidate replaces theirs
        if self.run.step and self.prober.is_beside:
            self.save(candidate=True)
        self.prober.ask(self.run.step, self.run.encoder())
        self._take_answers()

    def _take_answers(self, *, wait: bool = False) -> None:
        """Note and show what the probe has answered; the best encoder so far is kept."""
        for answer in self.prober.answers(wait=wait) if self.prober else ():
            scores = {f"{PROBE}{task}": score for task, score in answer.scores.items()}
            self.record.scalars(answer.step, scores)
            told = ", ".join(f"{task} {100 * score:.1f} %" for task, score in answer.scores.items())
            self.console.print(f"step {answer.step}: probe {told}", highlight=False)
            mean = math.fsum(answer.scores.values()) / len(answer.scores)
            if answer.step:
                self._warn_if_below_untrained(mean)
                self._keep_best(answer.step, mean)

    def _keep_best(self, step: int, mean: float) -> None:
        """Keep the state that the probe was asked about as `best.pt`, if it is the best so far."""
        if self.run.best is not None and mean <= self.run.best:
            return
        self.run.best = mean
        if self.prober is not None and self.prober.is_beside:
            self.saver.promote()
        else:
            self.save(best=True)

    def _warn_if_below_untrained(self, mean: float) -> None:
        """Say so if training has not made the encoder better than its first weights."""
        untrained = untrained_score(read_metrics(self.record.folder))
        if untrained is not None and mean < untrained:
            self.console.print(
                f"the probe is below the untrained encoder's {100 * untrained:.1f} %: early in a "
                "run that is common; if it stays so, train longer, lower optimizer.lr or look at "
                "the views in the report",
                style="yellow",
                highlight=False,
            )

    def save(self, *, best: bool = False, candidate: bool = False) -> None:
        """A checkpoint of the state after the last step, unless the run has diverged."""
        if best or candidate or self.saved_step != self.run.step:
            self.run.check_finite()
            self.saver.save(self.run.checkpoint(), best=best, candidate=candidate)
            self.saved_step = self.run.step

    def end(self, state: str, message: str = "") -> None:
        """Wait for the checkpoint, then tell the record how the run ended."""
        run, folder = self.run, self.record.folder
        run.batches.close()
        if self.prober:
            self.prober.close()
        self.saver.wait()
        self.saver.close()
        ending = {"state": state, "step": run.step, "total_steps": run.total_steps}
        _write_json(folder / "state.json", {**ending, "message": message})
        self.record.close()
        path = report.write(folder)
        self.console.print(f"report: {path}", highlight=False)


def _probe(recipe: Recipe, console: Console) -> Probe | None:
    settings = recipe.probe
    if not settings.tasks:
        return None
    console.print(f"reading {len(settings.tasks)} tasks for the probe")
    return Probe(
        [tasks.load(Path(path), settings.seconds) for path in settings.tasks], settings.kind
    )


def _describe_folder(run: Run, folder: Path) -> None:
    """Write down what the run is, before its first step."""
    _write_json(folder / RECIPE_NAME, run.recipe.model_dump(mode="json"))
    _write_json(folder / "environment.json", {**environment(), "modes": run.modes.for_record()})
    _write_json(folder / "data.json", describe(run.corpus))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _opening(run: Run) -> str:
    corpus, normalize = run.corpus, run.views.normalize
    return (
        f"{corpus.n_clips} clips, {corpus.hours:.2f} h; log-mel mean {normalize.mean:.4f}, std "
        f"{normalize.std:.4f}; {run.total_steps} steps of {run.recipe.run.batch_size} segments, "
        f"{run.modes.words()}"
    )


def _status(values: dict[str, float]) -> str:
    return (
        f"loss {values['loss']:.3f}  std {values['projection_std']:.2f}  rank "
        f"{values['effective_rank']:.0f}  {values['segments_per_s']:.0f} segments/s  "
        f"MFU {100 * values['mfu']:.0f} %  waiting {100 * values['data_wait']:.0f} %"
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


def _follow_on(console: Console) -> Any:
    """A function that goes through the clips of the store and shows a progress bar."""
    return lambda clips, title: tracked(clips, title, console)
