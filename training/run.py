"""A training run: its networks, its place in the schedule, its steps, its state.

What one step does stands in `step.py`. Letters: `B` batch (this process's rows), `S` samples, `F`
mel bands, `T` frames.
"""

import copy
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from models.audio import SAMPLE_RATE
from models.card import Training
from models.commit import git_commit
from models.nn.frontend import Normalize
from models.nn.model import WaveformEncoder
from training import optimizers, resuming, schedules
from training.capture import Captured, Inputs, Kept, recover
from training.checkpoint import Checkpoint, provenance
from training.data.batches import crops_of, open_batches
from training.data.corpus import Corpus, Sampler
from training.data.log_mels import Follow, compute, in_silence
from training.device import prepare_backends
from training.distributed import World, sync_batch_norm
from training.modes import CAPTURED, COMPILED, Modes, choose
from training.normalize import statistics
from training.objectives.objective import Outcome
from training.recipe import Recipe
from training.step import Result, Step
from training.views import Views

MIN_DEVIATION = 1e-3  # log units; less is a store of silence


class TrainingError(RuntimeError):
    """A run that cannot start or cannot go on."""


class Run:
    """Everything that one step reads and changes; `start` or `restore` comes first."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        device: torch.device,
        world: World = World(),
        follow: Follow = in_silence,
    ) -> None:
        self.recipe = recipe = recipe.for_processes(world.size)
        self.corpus, self.device, self.world = corpus, device, world
        _check_store(corpus, world, device)
        data, settings = recipe.data, recipe.run
        self.sampler = Sampler(
            corpus,
            data.weights,
            settings.seed,
            data.balance,
            data.length_power,
            data.segment_samples,
        )
        self.total_steps = settings.n_steps(self.sampler.epoch_segments)
        self.scaled = recipe.scaled()
        _check(recipe, self.total_steps, world.size * settings.accumulate)
        self.step = 0
        self.seconds = 0.0
        self.waited = 0.0
        """Seconds that steps have waited for their segments."""

        self.best: float | None = None
        self.commit = git_commit()
        self.initial: Training | None = None
        """Where the weights that it began with come from; None: they were random."""

        self.earlier_sources: dict[str, float] = {}
        """Hours by source of the stores that it was trained on before this one."""

        prepare_backends(device, deterministic=settings.deterministic)
        torch.manual_seed(settings.seed)
        self.objective = self.scaled.objective.build(recipe.encoder.build(), world)
        # channels_last: 1.4 times as fast on a CPU, and what tensor cores read
        self.objective.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.sync_batch_norm and world.size > 1:
            sync_batch_norm(self.objective, device)
        method = self.objective
        self.views = Views(recipe, method.n_views, world, method.n_local, method.local_share).to(
            device
        )
        self.optimizer = optimizers.build(self.objective, recipe.optimizer, device)
        if data.log_mels:
            world.from_main(lambda: compute(corpus, follow))
        rows = world.rows(settings.batch_size)
        draw = crops_of(corpus, self.sampler, data, settings.batch_size, rows)
        self.batches = open_batches(corpus, draw, data, device)
        chosen = choose(recipe, device, world)
        self.one_step = Step(
            modes=chosen,
            cut=lambda inputs: self.batches.cut(inputs),
            views=self.views,
            objective=self.objective,
            network=self.objective,
            optimizer=self.optimizer,
            scaler=torch.amp.GradScaler(device.type, enabled=chosen.precision == torch.float16),
            generator=torch.Generator(device),
            clip_norm=recipe.optimizer.clip_norm,
            parts=settings.accumulate,
        )
        self.trained = self.one_step.trained
        self._captured: Captured[Result] | None = None
        self._settled = False

    @property
    def modes(self) -> Modes:
        """How it computes; final after `settle`."""
        return self.one_step.modes

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

    def settle(self) -> None:
        """Compile the networks and record the step where that is wanted, before the first step.

        What fails is left out, with the reason in `modes.why_not`; no step is taken, and nothing
        that a step depends on changes.
        """
        if self._settled:
            return
        self._settled = True
        inputs = self.batches.load(self.step)
        if self.modes.compiled:
            self._compile(inputs)
        if self.world.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            with warnings.catch_warnings():  # its successor is not in all versions of torch
                warnings.simplefilter("ignore", FutureWarning)
                self.one_step.network = DistributedDataParallel(
                    self.one_step.network, device_ids=ids, broadcast_buffers=False
                )
        if self.modes.captured:
            self._capture(inputs)

    def _compile(self, inputs: Inputs) -> None:
        """Compile the networks and prove it on a batch; if one process fails, none compiles."""
        step = self.one_step
        kept, reason = Kept(step.state()), ""
        self._seed()
        views = step.views(step.cut(inputs), step.generator)
        try:
            step.network = torch.compile(self.objective)  # type: ignore[assignment]
            part = [view[: len(view) // step.parts] for view in views]
            step.scaler.scale(step.forward(part).loss).backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = _first_line(error)
        step.optimizer.zero_grad(set_to_none=True)
        kept.give_back(step.state())
        if self.world.any(bool(reason), self.device):
            step.network = self.objective
            step.modes = self.modes.without(COMPILED, reason or "it failed in another process")

    def _capture(self, inputs: Inputs) -> None:
        """Record the step as a CUDA graph; where that fails, steps go on without one."""
        step, kept = self.one_step, Kept(self.one_step.state())
        self._seed()
        try:
            self._captured = Captured(step, inputs, step.state, step.generator)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            step.modes = self.modes.without(CAPTURED, _first_line(error))
            step.optimizer.zero_grad(set_to_none=True)
            step.generator = torch.Generator(self.device)
            try:
                recover(self.device)
            except RuntimeError as lost:
                raise TrainingError(
                    f"recording the step failed ({_first_line(error)}) and the GPU no longer "
                    "answers: start again with --set run.capture=off"
                ) from lost
            kept.give_back(step.state())

    def train_step(self) -> Result:
        """The next optimiser step; the loss and the gradient's norm stay on the device.

        On a GPU the tensors are the same ones each time: read them before the next step.
        """
        self.settle()
        asked = time.perf_counter()
        inputs = self.batches.load(self.step)
        self.waited += time.perf_counter() - asked
        self._before_step()
        result = (self._captured or self.one_step)(inputs)
        self.step += 1
        return result

    def _before_step(self) -> None:
        """Set what changes from step to step by schedule, and seed the step's random numbers."""
        optimizers.set_learning_rate(self.optimizer, self.learning_rate(self.step))
        self.objective.before_step(self.step, self.total_steps)
        self._seed()

    def learning_rate(self, step: int) -> float:
        """The rate of a step, for this batch size."""
        return schedules.learning_rate(self.scaled.optimizer, step, self.total_steps)

    def values(self, outcome: Outcome) -> dict[str, float]:
        """Loss and logs of a step, means over the processes, all of which have to ask."""
        values = {"loss": outcome.loss, **outcome.logs}
        means = self.world.mean(torch.stack([value.float() for value in values.values()]))
        return dict(zip(values, means.tolist(), strict=True))

    def _seed(self) -> None:
        """Seed the random numbers of a step by the run's seed and the step alone."""
        seed = _seed_of_step(self.recipe.run.seed, self.step)
        self.one_step.generator.manual_seed(seed)
        torch.manual_seed(seed + 1 + self.world.rank)  # dropout's

    def check_finite(self) -> None:
        """Stop a run that has diverged.

        Raises:
            TrainingError: a loss or a weight is not a finite number.
        """
        first = int(self.one_step.first_bad.item())
        weights = [p.detach() for p in self.trained]
        if first >= 0:
            what = f"the loss of step {first} is not finite"
        elif not torch.stack(torch._foreach_norm(weights)).isfinite().all():
            what = f"a weight is not finite at step {self.step}"
        else:
            return
        raise TrainingError(
            f"{what}; the checkpoint before it, if there is one, is kept. Lower optimizer.lr (or "
            "give it optimizer.warmup_steps), set optimizer.clip_norm to ten times the usual "
            "grad_norm of the record, or rule out the precision with run.precision=float32; with "
            "that begin a run in another folder, from the checkpoint by --init. --resume takes no "
            "other settings"
        )

    def encoder(self) -> WaveformEncoder:
        """The online encoder behind its front end, sharing the weights that are trained."""
        normalize = self.views.normalize
        branch = self.objective.online
        return WaveformEncoder(branch.encoder, normalize.mean, normalize.std).to(self.device)

    def view_stages(self, n: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """What each augmentation makes of `n` segments of the next step, by its name."""
        pcm = self.batches.cut(self.batches.load(self.step))
        generator = torch.Generator(self.device).manual_seed(
            _seed_of_step(self.recipe.run.seed, self.step)
        )
        views = copy.deepcopy(self.views)  # the bank stays as it is
        stages = views.stages(pcm, generator, n)
        return {name: stage.float().cpu().numpy() for name, stage in stages.items()}

    def checkpoint(self) -> Checkpoint:
        """The state after the last step; its tensors are those that the next step changes."""
        return Checkpoint(
            recipe=self.recipe.model_dump(mode="json"),
            mean=self.views.normalize.mean,
            std=self.views.normalize.std,
            step=self.step,
            seconds=self.seconds,
            best=self.best,
            corpus=self._described(),
            commit=self.commit,
            objective=self.objective.state_dict(),
            views=self.views.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.one_step.scaler.state_dict(),
            initial=self.initial.model_dump(mode="json") if self.initial else None,
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
                f"those of {saved.recipe.get('name', 'its run')}. To begin with its encoder alone, "
                "write that by viola weights CHECKPOINT -o NAME.safetensors"
            ) from error
        self.initial = provenance(saved)

    def restore(self, saved: Checkpoint, *, other_store: bool = False) -> None:
        """Go on from a checkpoint of the same recipe and store, made by any number of processes.

        Args:
            saved: the checkpoint.
            other_store: the store may be another one, say with more clips; its statistics are
                measured anew.

        Raises:
            TrainingError: another recipe, or another store without leave.
        """
        if refused := resuming.refusal(saved, self.recipe, self.sampler.epoch_segments):
            raise TrainingError(refused)
        self.earlier_sources = dict(saved.corpus["sources"])
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
        if saved.scaler:
            self.one_step.scaler.load_state_dict(dict(saved.scaler))
        self.one_step.steps_done.fill_(saved.step)
        self.step, self.seconds = saved.step, saved.seconds
        self.best, self.commit = saved.best, saved.commit
        self.initial = Training.model_validate(saved.initial) if saved.initial else None

    def _described(self) -> dict[str, Any]:
        """What a checkpoint tells of the store, and the sources that an earlier one had besides."""
        told = describe(self.corpus)
        return told | {"sources": self.earlier_sources | told["sources"]}


def describe(corpus: Corpus) -> dict[str, Any]:
    """What a checkpoint and a record tell of the store."""
    hours = np.bincount(corpus.source_of, corpus.lengths, len(corpus.sources)) / SAMPLE_RATE / 3600
    return {
        "fingerprint": corpus.fingerprint,
        "clips": int(corpus.n_clips),
        "hours": float(corpus.hours),
        "sources": dict(zip(corpus.sources, hours.tolist(), strict=True)),
    }


def _check_store(corpus: Corpus, world: World, device: torch.device) -> None:
    """Refuse processes that have opened different stores: each would draw from its own clips.

    Raises:
        TrainingError: in all of them, lest the others wait for those that end.
    """
    first = world.from_main(lambda: (corpus.fingerprint, corpus.n_clips, corpus.hours))
    is_other = corpus.fingerprint != first[0]
    if not world.any(is_other, device):
        return
    found = "the store of another process"
    if is_other:
        found = f"that of process {world.rank}, {corpus.n_clips} clips, {corpus.hours:.2f} h,"
    raise TrainingError(
        f"{corpus.folder}: {found} is not that of the first process, {first[1]} clips, "
        f"{first[2]:.2f} h; every machine needs the same store, copied to its end"
    )


def _check(recipe: Recipe, total_steps: int, parts: int) -> None:
    """Refuse parts of a batch that have no statistics, and what no schedule can be made of."""
    if parts * 2 > recipe.run.batch_size:
        raise TrainingError(
            f"run.batch_size {recipe.run.batch_size} in {parts} parts (run.accumulate times the "
            "processes) leaves one segment in each; at least 2 are needed: raise the one, or lower "
            "the other"
        )
    warmup, decay = recipe.optimizer.warmup_steps, resuming.decay_steps(recipe)
    if warmup and warmup >= total_steps:
        raise TrainingError(
            f"optimizer.warmup_steps is {warmup} of {total_steps} steps; lower it or train longer"
        )
    if decay and warmup + decay > total_steps:
        raise TrainingError(
            f"optimizer.warmup_steps and decay_steps are {warmup} and {decay} of {total_steps} "
            "steps; lower them or train longer"
        )


def _seed_of_step(seed: int, step: int) -> int:
    """A seed for each step, far from those of its neighbours."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(2))


def _first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message, which may be pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'without a message'}"
