"""One row of the comparison: train a variant, embed the tasks' clips, probe them.

Letters: `N` clips, `S` samples, `D` embedding dim.
"""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comparison.plan import UNTRAINED, ComparisonError
from models.atomic import replacing
from models.labelled.splits import Indices, Round
from models.labelled.tasks import Task
from training import checkpoint, collapse
from training.data.corpus import Corpus
from training.device import choose_device
from training.evaluation import embeddings, probe, scores
from training.evaluation.linear_probe import linear
from training.evaluation.neighbours import knn
from training.evaluation.task_names import open_tasks
from training.recipe import Recipe
from training.run import Run, TrainingError

PROBES = {"linear": linear, "knn": knn}
BATCH = 64  # clips whose log-mels are taken at a time
SAVE_S = 300.0  # between two checkpoints of a row


@dataclass(frozen=True)
class Protocol:
    """What all rows have in common.

    Attributes:
        store: what is trained on.
        segments: seen by every variant.
        tasks: `PATH@SECONDS` of each.
        clips: of a task at most, the same ones for every row; 0: all.
        device: "auto", "cpu" or "cuda".
        threads: of the process of a row.
        unfinished: the folder of the checkpoints of rows that are being trained.
    """

    store: str
    segments: int
    tasks: tuple[str, ...]
    clips: int = 0
    device: str = "cpu"
    threads: int = 1
    unfinished: str = ""


@dataclass(frozen=True)
class Job:
    """A variant and a seed; `recipe` None: log-mel statistics, which need no network."""

    variant: str
    seed: int
    recipe: Recipe | None
    protocol: Protocol

    @property
    def key(self) -> str:
        """A hash of all that the row's numbers depend on, but for the code and the machine."""
        content: dict[str, Any] = {"variant": self.variant, "protocol": asdict(self.protocol)}
        for how in ("store", "device", "threads", "unfinished"):
            del content["protocol"][how]
        content["protocol"]["tasks"] = [Path(task).name for task in self.protocol.tasks]
        if self.recipe:
            content["recipe"] = self.recipe.model_dump(mode="json", exclude={"name", "probe"})
            content["store"] = _corpus(self.protocol.store).fingerprint
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Row:
    """What became of a job.

    Attributes:
        steps: of the optimiser.
        seconds: of training, of the probes.
        loss: mean of the last tenth of the steps.
        effective_rank: of the projections in the last step.
        scores: accuracy in [0, 1] by task and probe, mean over its rounds.
        failed: why there are no scores.
    """

    variant: str
    seed: int
    key: str
    batch_size: int = 0
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    effective_rank: float | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: str = ""


def compute(job: Job) -> Row:
    """Train, embed and probe, in this process."""
    torch.set_num_threads(job.protocol.threads)
    row = Row(job.variant, job.seed, job.key)
    if job.recipe is None:
        subject = embeddings.of_log_mels()
        return _probed(row, job.protocol, lambda units: _in_batches(subject.embed, units))
    try:
        run, row = _trained(job, row)
    except TrainingError as error:
        return replace(row, failed=str(error))
    model = run.encoder().eval()
    row = replace(row, seconds={"training": round(run.seconds, 1)})
    return _probed(row, job.protocol, lambda units: probe.embed(model, units))


def _trained(job: Job, row: Row) -> tuple[Run, Row]:
    assert job.recipe is not None
    settings = job.recipe.run
    run = Run(job.recipe, _corpus(job.protocol.store), choose_device(job.protocol.device))
    unfinished = Unfinished(job)
    losses = unfinished.resume(run)
    steps = 0 if job.variant == UNTRAINED else job.protocol.segments // settings.batch_size
    started = saved = time.perf_counter() - run.seconds
    while run.step < steps:
        outcome, _ = run.train_step()
        losses.append(outcome.loss.clone())
        now = time.perf_counter()
        if now - saved >= SAVE_S and run.step < steps:
            run.seconds, saved = now - started, now
            unfinished.save(run, losses)
            done = f"step {run.step} of {steps}, loss {outcome.loss.item():.3f}"
            print(f"  {job.variant}, seed {job.seed}: {done}", flush=True)
    run.seconds = time.perf_counter() - started
    run.check_finite()
    run.batches.close()
    if not losses:
        return run, row
    measured = collapse.measure(outcome.projection, outcome.prediction, outcome.target)
    last = torch.stack(losses[-max(1, steps // 10) :])
    row = replace(row, batch_size=settings.batch_size, steps=steps)
    rank = round(measured["effective_rank"], 2)
    return run, replace(row, loss=round(last.mean().item(), 4), effective_rank=rank)


class Unfinished:
    """The checkpoint of a row that is being trained, and its losses: KEY.pt and KEY.losses."""

    def __init__(self, job: Job) -> None:
        folder = Path(job.protocol.unfinished)
        self.checkpoint, self.losses = (
            folder / f"{job.key}.{suffix}" for suffix in ("pt", "losses")
        )

    def save(self, run: Run, losses: list[torch.Tensor]) -> None:
        """Keep a run between two steps; losses first, so that none is missing."""
        self.losses.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.losses) as temporary:
            torch.save(torch.stack(losses), temporary)
        checkpoint.write(run.checkpoint(), self.checkpoint)

    def resume(self, run: Run) -> list[torch.Tensor]:
        """Start a run, or go on with it where it was kept; the losses so far.

        Raises:
            CheckpointError: of another version, or damaged.
        """
        if not self.checkpoint.exists():
            run.start()
            return []
        run.restore(checkpoint.load(self.checkpoint, run.device))
        losses = torch.load(self.losses, map_location=run.device, weights_only=True)
        return list(losses[: run.step])

    def remove(self) -> None:
        """Once the row is written."""
        for path in (self.checkpoint, self.losses):
            path.unlink(missing_ok=True)


def _probed(row: Row, protocol: Protocol, embed: Callable[..., np.ndarray]) -> Row:
    started = time.perf_counter()
    found: dict[str, dict[str, float]] = {}
    vectors: dict[int, np.ndarray] = {}  # of the clips of one array: two tasks may share them
    for task, units in _tasks(protocol.tasks, protocol.clips):
        if id(units) not in vectors:
            vectors[id(units)] = embed(units)
        x, labels = vectors[id(units)], task.one_hot
        if not np.isfinite(x).all():
            return replace(row, failed="the vectors are not finite numbers")
        found[task.name] = {
            name: float(np.mean([_score(task, ask(x, labels, r), r) for r in task.rounds]))
            for name, ask in PROBES.items()
        }
    seconds = {**row.seconds, "probes": round(time.perf_counter() - started, 1)}
    return replace(row, scores=found, seconds=seconds)


def _score(task: Task, answer: np.ndarray, round_: Round) -> float:
    return scores.measure(task.one_hot[round_.test], answer, task.is_multilabel)


def _in_batches(embed: Callable[..., np.ndarray], units: np.ndarray) -> np.ndarray:
    return np.concatenate([embed(units[i : i + BATCH]) for i in range(0, len(units), BATCH)])


@cache
def _corpus(store: str) -> Corpus:
    return Corpus(Path(store))


@cache
def _tasks(names: tuple[str, ...], clips: int) -> list[tuple[Task, np.ndarray]]:
    """Each task with its clips (N, S), decoded once a process; of equal clips one array."""
    opened: list[tuple[Task, np.ndarray]] = []
    decoded: dict[tuple[object, ...], np.ndarray] = {}
    for task in open_tasks(names):
        task = some_clips(task, clips)
        mark = (task.n_samples, task.digests)
        if mark not in decoded:
            decoded[mark] = task.units()
        opened.append((task, decoded[mark]))
    return opened


def some_clips(task: Task, n: int) -> Task:
    """The task with `n` of its clips, which keep the shares of groups, folds and classes.

    By the hash of their content, so that two tasks on the same clips keep the same ones where they
    can, and so does every run. All clips where `n` is 0 or they are no more.

    Raises:
        ComparisonError: too few for a part of a round.
    """
    if not n or n >= task.n_clips:
        return task
    ranks: dict[object, int] = defaultdict(int)
    rank = np.zeros(task.n_clips, np.int64)
    fold = np.zeros(task.n_clips, np.int64)
    for number, round_ in enumerate(task.rounds):
        fold[round_.test] = number
    by_hash = np.argsort(task.digests)
    for index in by_hash:
        cell = (fold[index], task.one_hot[index].tobytes())
        rank[index] = ranks[cell]
        ranks[cell] += 1
    place = np.empty(task.n_clips, np.int64)
    place[by_hash] = np.arange(task.n_clips)
    kept = np.sort(np.lexsort([place, rank])[:n])

    def moved(part: Indices) -> Indices:
        return np.flatnonzero(np.isin(kept, part))

    rounds = tuple(Round(r.name, *map(moved, (r.train, r.valid, r.test))) for r in task.rounds)
    if not all(len(part) for r in rounds for part in (r.train, r.valid, r.test)):
        raise ComparisonError(
            f"--clips {n} leave a round of {task.name} without clips to train, validate or test; "
            "give more"
        )
    return replace(
        task,
        labels=task.labels[kept],
        rounds=rounds,
        groups=None if task.groups is None else task.groups[kept],
        files=tuple(task.files[i] for i in kept),
        digests=tuple(task.digests[i] for i in kept),
    )
