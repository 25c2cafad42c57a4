"""A training run: its networks, its place in the schedule, one step of it, its state.

Letters: `B` batch (this process's rows), `S` samples, `F` mel bands, `T` frames.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.commit import git_commit
from models.nn.frontend import Normalize
from models.nn.model import WaveformEncoder
from training import optimizers, schedules
from training.capture import Captured, Inputs
from training.checkpoint import Checkpoint
from training.data.batches import crops_of, open_batches
from training.data.corpus import Corpus, Sampler
from training.device import choose_precision, prepare_backends
from training.distributed import World, sync_batch_norm
from training.normalize import statistics
from training.objectives.objective import Outcome
from training.recipe import Recipe
from training.views import Views

# Settings that may change when a run goes on, because no step depends on them
FREE = {"name", "data.resident", "data.workers", "run.log_every", "run.checkpoint_every"}
FREE |= {"run.views_every", "probe.tasks", "probe.every", "probe.kind", "probe.seconds"}
# And those that no step so far depended on, where the rate has not begun to fall
MOVES_END = {"run.epochs", "run.steps", "optimizer.schedule", "optimizer.decay_steps"}

MIN_DEVIATION = 1e-3  # log units; less is a store of silence


class TrainingError(RuntimeError):
    """A run that cannot start or cannot go on."""


class Run:
    """Everything that one step reads and changes; `start` or `restore` comes first."""

    def __init__(
        self, recipe: Recipe, corpus: Corpus, device: torch.device, world: World = World()
    ) -> None:
        self.recipe, self.corpus, self.device, self.world = recipe, corpus, device, world
        data = recipe.data
        self.sampler = Sampler(
            corpus,
            data.weights,
            recipe.run.seed,
            data.balance,
            data.length_power,
            data.segment_samples,
        )
        self.total_steps = recipe.run.n_steps(self.sampler.epoch_segments)
        self.scaled = recipe.scaled()
        _check(recipe, self.total_steps, world)
        self.step = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.commit = git_commit()
        self.precision = choose_precision(recipe.run, device)
        prepare_backends(device)
        torch.manual_seed(recipe.run.seed)
        self.objective = self.scaled.objective.build(recipe.encoder.build(), world)
        # channels_last: 1.4 times as fast on a CPU, and what tensor cores read
        self.objective.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.run.sync_batch_norm and world.size > 1:
            sync_batch_norm(self.objective, device)
        self.views = Views(recipe, self.objective.n_views, world).to(device)
        self.optimizer = optimizers.build(self.objective, recipe.optimizer, device)
        self.trained = [p for p in self.objective.parameters() if p.requires_grad]
        self.network = self._wrapped()
        self.generator = torch.Generator(device)
        # Steps done, and the first of them whose loss was not finite: read when the loop logs, so
        # that no step waits for the device
        self.steps_done = torch.zeros((), dtype=torch.int64, device=device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        rows = world.rows(recipe.run.batch_size)
        draw = crops_of(corpus, self.sampler, data, recipe.run.batch_size, rows)
        self.batches = open_batches(corpus, draw, data, device)
        self._captured: Captured[tuple[Outcome, Tensor]] | None = None

    @property
    def captures(self) -> bool:
        """Whether the step is replayed as a CUDA graph."""
        wanted = self.recipe.run.capture
        return self.device.type == "cuda" and self.world.size == 1 and wanted != "off"

    @property
    def compiles(self) -> bool:
        """Whether the networks are compiled."""
        wanted = self.recipe.run.compile
        return wanted == "on" or (wanted == "auto" and self.device.type == "cuda")

    def _wrapped(self) -> nn.Module:
        network: nn.Module = self.objective
        if self.world.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            network = DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
        if self.compiles:
            network = torch.compile(network)  # type: ignore[assignment]
        return network

    def start(self) -> None:
        """Measure the pre-normalisation statistics of this store, once before the first step.

        Raises:
            TrainingError: the store is silent.
        """
        data = self.recipe.data
        mean, std = statistics(
            self.corpus,
            self.sampler,
            self.views.frontend,
            data.segment_samples,
            data.pad,
            self.device,
        )
        if std < MIN_DEVIATION:
            raise TrainingError(
                f"the log-mels of this store have a deviation of {std:.2g}: silence?"
            )
        both = self.world.mean(torch.tensor([mean, std], dtype=torch.float64, device=self.device))
        # Without either normalisation the encoder learns raw log-mels, and is served them
        normalizes = self.recipe.augment.pre_norm or self.recipe.augment.post_norm
        self.views.normalize = Normalize(*both.tolist()) if normalizes else Normalize(0.0, 1.0)

    def train_step(self) -> tuple[Outcome, Tensor]:
        """The next optimiser step; the loss and the gradient's norm stay on the device.

        On a GPU the tensors are the same ones each time: read them before the next step.
        """
        inputs = self.batches.load(self.step)
        if self.captures and self._captured is None:
            self._seed()
            self._captured = Captured(self._step, inputs, self._state, self.generator)
        lr = self.learning_rate(self.step)
        optimizers.set_learning_rate(self.optimizer, lr)
        self.objective.before_step(self.step, self.total_steps)
        self._seed()
        result = self._captured(inputs) if self._captured else self._step(inputs)
        self.step += 1
        return result

    def learning_rate(self, step: int) -> float:
        """The rate of a step, for this batch size."""
        return schedules.learning_rate(self.scaled.optimizer, step, self.total_steps)

    def _step(self, inputs: Inputs) -> tuple[Outcome, Tensor]:
        views = self.views(self.batches.cut(inputs), self.generator)
        outcome = self.forward(views)
        self.optimizer.zero_grad(set_to_none=True)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        norm = self._clip()
        self.optimizer.step()
        self.objective.after_step()  # EMA after the optimiser's step: BYOL, alg. 1
        self._watch(outcome.loss.detach())
        return outcome._replace(loss=outcome.loss.detach()), norm

    def forward(self, views: list[Tensor]) -> Outcome:
        """The objective in the run's precision."""
        reduced = self.precision == torch.bfloat16
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=reduced):
            outcome: Outcome = self.network(views)
        return outcome

    def values(self, outcome: Outcome) -> dict[str, float]:
        """Loss and logs of a step, means over the processes, all of which have to ask."""
        values = {"loss": outcome.loss, **outcome.logs}
        means = self.world.mean(torch.stack([value.float() for value in values.values()]))
        return dict(zip(values, means.tolist(), strict=True))

    def _clip(self) -> Tensor:
        """The gradient's norm before it is cut down to the recipe's limit."""
        limit = self.recipe.optimizer.clip_norm or float("inf")
        return nn.utils.clip_grad_norm_(self.trained, limit, foreach=True)

    def _watch(self, loss: Tensor) -> None:
        self.steps_done += 1
        bad = ~loss.isfinite() & (self.first_bad < 0)
        self.first_bad.copy_(torch.where(bad, self.steps_done, self.first_bad))

    def _seed(self) -> None:
        """All random numbers of a step follow from the seed and the step alone."""
        seed = _seed(self.recipe.run.seed, self.step)
        self.generator.manual_seed(seed)
        torch.manual_seed(seed + 1 + self.world.rank)  # dropout's

    def check_finite(self) -> None:
        """Stop a run that has diverged.

        Raises:
            TrainingError: a loss or a weight is not a finite number.
        """
        first = int(self.first_bad.item())
        weights = [p.detach() for p in self.trained]
        if first >= 0:
            what = f"the loss of step {first} is not finite"
        elif not torch.stack(torch._foreach_norm(weights)).isfinite().all():
            what = f"a weight is not finite at step {self.step}"
        else:
            return
        raise TrainingError(
            f"{what}; the checkpoint before it is kept. Lower optimizer.lr, or set "
            "optimizer.clip_norm"
        )

    def encoder(self) -> WaveformEncoder:
        """The online encoder behind its front end, sharing the weights that are trained."""
        normalize = self.views.normalize
        branch = self.objective.online
        return WaveformEncoder(branch.encoder, normalize.mean, normalize.std).to(self.device)

    def view_stages(self, n: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """What each augmentation makes of `n` segments of the next step, by its name."""
        pcm = self.batches.cut(self.batches.load(self.step))
        generator = torch.Generator(self.device).manual_seed(_seed(self.recipe.run.seed, self.step))
        views = copy.deepcopy(self.views)  # the bank stays as it is
        stages = views.stages(pcm, generator, n)
        return {name: stage.float().cpu().numpy() for name, stage in stages.items()}

    def _state(self) -> list[Tensor]:
        """Every tensor that a step changes."""
        tensors = [*self.objective.parameters(), *self.objective.buffers(), *self.views.buffers()]
        for moments in self.optimizer.state.values():
            tensors += [value for value in moments.values() if isinstance(value, Tensor)]
        return [*tensors, self.steps_done, self.first_bad]

    def checkpoint(self) -> Checkpoint:
        """The state after the last step; its tensors are those that the next step changes."""
        return Checkpoint(
            recipe=self.recipe.model_dump(mode="json"),
            mean=self.views.normalize.mean,
            std=self.views.normalize.std,
            step=self.step,
            seconds=self.seconds,
            best=self.best,
            corpus=describe(self.corpus),
            commit=self.commit,
            objective=self.objective.state_dict(),
            views=self.views.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )

    def begin_with(self, saved: Checkpoint) -> None:
        """Start with the networks of another run, whose recipe has the same ones.

        Raises:
            TrainingError: its networks are of other sizes, or the store is silent.
        """
        self.start()
        try:
            self.objective.load_state_dict(saved.objective)
        except RuntimeError as error:
            raise TrainingError(
                "the checkpoint has other networks than the recipe: encoder and objective must be "
                f"those of {saved.recipe.get('name', 'its run')}"
            ) from error

    def restore(self, saved: Checkpoint, *, other_store: bool = False) -> None:
        """Go on from a checkpoint of the same recipe and store, made by any number of processes.

        Args:
            saved: the checkpoint.
            other_store: the store may be another one, say with more clips; its statistics are
                measured anew.

        Raises:
            TrainingError: another recipe, or another store without leave.
        """
        # A recipe from before a setting existed has the setting's default
        before = Recipe.model_validate(saved.recipe)
        free = set(FREE)
        falls_at = before.run.n_steps(self.sampler.epoch_segments) - _decay_steps(before)
        if saved.step <= falls_at and not (_has_fixed_end(before) or _has_fixed_end(self.recipe)):
            free |= MOVES_END
        changed = _changes(
            before.model_dump(mode="json"), self.recipe.model_dump(mode="json"), free
        )
        if not saved.optimizer:
            raise TrainingError(
                "the checkpoint holds weights alone, and no run can be resumed from it: begin a "
                "new one with --init"
            )
        if changed:
            raise TrainingError(
                "the checkpoint was made with other settings: "
                + "; ".join(changed)
                + ". Resume with those, or start a new run in another folder"
            )
        if saved.corpus["fingerprint"] == self.corpus.fingerprint:
            self.views.normalize = Normalize(saved.mean, saved.std)
        elif other_store:
            self.start()
        else:
            raise TrainingError(
                f"the checkpoint was made on another store, of {saved.corpus['clips']} clips. "
                "Resume on that one, pass --other-store to go on with this one, or start a new run "
                "in another folder"
            )
        self.objective.load_state_dict(saved.objective)
        self.views.load_state_dict(saved.views)
        optimizers.restore(self.optimizer, saved.optimizer)
        self.steps_done.fill_(saved.step)
        self.step, self.seconds = saved.step, saved.seconds
        self.best, self.commit = saved.best, saved.commit


def describe(corpus: Corpus) -> dict[str, Any]:
    """What a checkpoint and a record tell of the store."""
    hours = np.bincount(corpus.source_of, corpus.lengths, len(corpus.sources)) / 16_000 / 3600
    return {
        "fingerprint": corpus.fingerprint,
        "clips": int(corpus.n_clips),
        "hours": float(corpus.hours),
        "sources": dict(zip(corpus.sources, hours.tolist(), strict=True)),
    }


def _check(recipe: Recipe, total_steps: int, world: World) -> None:
    """Refuse what no batch or schedule can be made of."""
    settings = recipe.run
    if settings.batch_size % world.size:
        raise TrainingError(
            f"run.batch_size is {settings.batch_size}, for {world.size} processes; choose a "
            "multiple of them"
        )
    warmup, decay = recipe.optimizer.warmup_steps, _decay_steps(recipe)
    if warmup and warmup >= total_steps:
        raise TrainingError(
            f"optimizer.warmup_steps is {warmup} of {total_steps} steps; lower it or train longer"
        )
    if decay and warmup + decay > total_steps:
        raise TrainingError(
            f"optimizer.warmup_steps and decay_steps are {warmup} and {decay} of {total_steps} "
            "steps; lower them or train longer"
        )


def _decay_steps(recipe: Recipe) -> int:
    """Steps at the end in which the rate falls; 0 where that is not a part of the run."""
    settings = recipe.optimizer
    return settings.decay_steps if settings.schedule == "stable-decay" else 0


def _seed(seed: int, step: int) -> int:
    """A seed for each step, far from those of its neighbours."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(2))


def _has_fixed_end(recipe: Recipe) -> bool:
    """Whether every step depends on how many steps there are."""
    return recipe.optimizer.schedule == "cosine" or recipe.objective.depends_on_length


def _changes(
    saved: dict[str, Any], mine: dict[str, Any], free: set[str], prefix: str = ""
) -> list[str]:
    """Settings that differ between two recipes, save those that are `free` to."""
    changed = []
    for key, value in mine.items():
        name = prefix + key
        if isinstance(value, dict) and isinstance(saved.get(key), dict) and name != "data.weights":
            changed += _changes(saved[key], value, free, name + ".")
        elif saved.get(key) != value and name not in free:
            changed.append(f"{name} was {saved.get(key)}, is {value}")
    return changed
