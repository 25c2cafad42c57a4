"""A training run as a TOML document; the defaults are those of BYOL-A v2 (arXiv 2204.07402)."""

import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from models.audio import SAMPLE_RATE
from models.nn.encoder import ENCODERS, ConvEncoder, local_dim_v2
from models.nn.frontend import HOP_LENGTH
from models.nn.norm import GROUP_CHANNELS, Norm
from models.suggest import did_you_mean
from training.objectives import byol
from training.objectives.methods import DEFAULT, METHODS, Method, without_options
from training.schedules import RateSchedule
from training.section import Section, settings_of

BY_HARDWARE = "default"
"""Stands for the recipe that this machine is best at."""

OLD_NAMES = {"light": "cpu"}


class RecipeError(ValueError):
    """A recipe that does not exist or does not validate."""


class Data(Section):
    """What a training segment is and which clips it comes from."""

    segment_s: float = Field(0.95, gt=0.1)
    pad: Literal["end", "both"] = "end"
    weights: dict[str, float] = {}
    """Chance of a clip by its source, as a factor; sources that are not named have 1.

    Empty, with a balance of 1: each clip once an epoch.
    """

    balance: float = Field(1.0, ge=0, le=1)
    """A source of n clips has n ** balance of the draws; 0: all sources have as many."""

    length_power: float = Field(0.0, ge=0, le=1)
    """A clip of n segments' length counts as n ** length_power clips, in draws and in epochs.

    0: each clip once an epoch, as in the papers; 1: each second of sound is as likely.
    """

    log_mels: bool = False
    """Compute the log-mels of the whole store once, into a file in its folder.

    Saves a light encoder a quarter of its steps on a CPU. Segments then begin on each clip's own
    grid of 10 ms, and silence is what short ones are padded with in the spectrum.
    """

    resident: Literal["auto", "device", "host"] = "auto"
    """Where segments are cut: in device memory, if the store fits there, or on the host."""

    workers: int = Field(2, gt=0, le=1024)
    """Threads that cut batches ahead of their step, when the store stays on the host."""

    @property
    def segment_samples(self) -> int:
        """Samples of a segment at 16 kHz."""
        return round(self.segment_s * SAMPLE_RATE)

    @property
    def segment_frames(self) -> int:
        """Log-mel frames of a segment."""
        return 1 + self.segment_samples // HOP_LENGTH


class Encoder(Section):
    """Which network is trained."""

    name: Literal["AudioNTT2020", "AudioNTT2022", "StridedConv"] = "AudioNTT2022"
    embed_dim: int = Field(3072, gt=0)
    hidden_dim: int | None = Field(None, gt=0)
    """Of the MLP of each frame; None: 2048 for AudioNTT2022, `embed_dim` for the others."""

    n_channels: int | None = Field(None, gt=0)
    """Of the first convolution; None: 64 for the papers' encoders, 32 for StridedConv.

    The papers' other convolutions have as many, those of StridedConv twice as many each.
    """

    norm: Norm = "batch"
    """`group` and `layer` norm see a frame alone, so that a vector stays exact; see `FrameNorm`."""

    weight_standardization: bool = False
    """Standardise the filters of the convolutions."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n_channels = self.n_channels or ENCODERS[self.name].default_channels
        local_dim = local_dim_v2(n_channels)
        if self.name == "AudioNTT2022" and self.embed_dim <= local_dim:
            raise ValueError(f"AudioNTT2022 needs an embed_dim above {local_dim}")
        if self.norm == "group" and n_channels % GROUP_CHANNELS:
            raise ValueError(
                f"n_channels is {n_channels}; group norm needs a multiple of {GROUP_CHANNELS}"
            )
        return self

    def build(self) -> ConvEncoder:
        """The network with fresh weights."""
        encoder = ENCODERS[self.name]
        return encoder(
            embed_dim=self.embed_dim,
            hidden_dim=self.hidden_dim,
            n_channels=self.n_channels or encoder.default_channels,
            norm=self.norm,
            weight_standardization=self.weight_standardization,
        )


class Augment(Section):
    """Strength of each augmentation; 0 switches one off, `false` the crop or a normalisation."""

    pre_norm: bool = True
    """Normalise by the store's statistics before the augmentations."""

    mixup_alpha: float = Field(0.2, ge=0, le=1)
    mixup_bank: int = Field(2048, gt=0)
    noise_ratio: float = Field(0.0, ge=0, le=1)
    """Of the Gaussian noise that BYOL-A's ablations mix in; 0: none, as BYOL-A is."""

    resize_crop: bool = True
    crop_scale: tuple[float, float] = (0.6, 1.5)
    """Least and greatest side of the crop, times the segment's."""

    crop_scale_frequency: tuple[float, float] | None = None
    """The same for the mel bands, where it is not that of the time; near 1 it keeps the pitch."""

    canvas_time: float = Field(1.5, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("crop_scale", "crop_scale_frequency"):
            low, high = getattr(self, name) or self.crop_scale
            if not 0 < low <= high:
                raise ValueError(f"{name} is {low:g}, {high:g}; expected 0 < low <= high")
        return self

    fader_gain: float = Field(1.0, ge=0)
    post_norm: bool = True
    """Normalise all views of a batch together after the augmentations."""


class Optimizer(Section):
    """Which optimiser, and the course of its learning rate."""

    name: Literal["adam", "adamw", "sgd", "lars"] = "adam"
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    """Not for biases and norm layers."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """For sgd and lars."""

    schedule: RateSchedule = "constant"
    """`cosine` falls from `lr` to 0 over the run; `stable-decay` over its last `decay_steps`."""

    decay_steps: int = Field(0, ge=0)
    """Of `stable-decay`. Before them no step depends on the length of the run: it may change."""

    warmup_steps: int = Field(0, ge=0)
    """Steps of linear growth up to `lr`."""

    clip_norm: float = Field(0.0, ge=0)
    """Largest norm of the whole gradient; 0: not clipped."""


class Probe(Section):
    """Accuracy of the frozen encoder on labelled clips, every so many steps."""

    tasks: list[str] = []
    """CSV files with columns file_name, label and fold or split; paths from the working folder."""

    every: int = Field(5000, gt=0)
    every_s: float | None = Field(None, gt=0)
    """Seconds between probes instead of steps; on a GPU they are asked while training goes on."""

    kind: Literal["knn", "linear"] = "knn"
    seconds: float | None = Field(None, gt=0)
    """Length that clips are padded or cut to; the task's mean if not given."""


class Run(Section):
    """How long, how large and how often."""

    batch_size: int = Field(256, gt=1)
    """Segments of a step, of all processes together; made up to a multiple of them."""

    batch_per_gpu: int | None = Field(None, gt=1)
    """Segments of a GPU instead: `batch_size` is then as many times that as there are processes."""

    accumulate: int = Field(1, gt=0)
    """Parts that a process takes its rows in, for batches that memory does not hold.

    Their gradients are averaged; batch statistics, and what a method compares, are those of a part.
    """

    base_batch_size: int | None = Field(None, gt=1)
    """The batch that `optimizer.lr` and `objective.ema_decay` are meant for; None: any.

    With another `batch_size` the rate of Adam changes with the square root of their ratio (arXiv
    2205.10330), that of SGD and LARS in proportion, and the decay becomes decay ** ratio (arXiv
    2307.13813), so that the target follows a segment as fast.
    """

    epochs: float = Field(100, gt=0, le=1e9)
    """One epoch is as many segments as the store has clips, long ones as `data.length_power` says.
    """

    steps: int | None = Field(None, gt=0, le=10**12)
    """Length of the run in steps instead of epochs."""

    segments: int | None = Field(None, gt=0, le=10**15)
    """Length of the run in segments instead of either, whatever the batch."""

    seed: int = Field(42, ge=0, lt=2**63)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 where the processor computes in it, float16 on a GPU that does not.

    With float16 the loss is scaled up, and steps whose gradient overflows are left out.
    """

    compile: Literal["auto", "on", "off"] = "auto"
    """`torch.compile` for the networks; `auto`: on a GPU. What fails is left out, and said."""

    capture: Literal["auto", "on", "off"] = "auto"
    """Replay the whole step as one CUDA graph; `auto`: on one GPU. Likewise."""

    deterministic: bool = True
    """On a GPU only algorithms whose sums have one order: a resumed run repeats every bit.

    False: the fastest for these shapes; a resumed run is then the same up to rounding.
    """

    sync_batch_norm: bool = False
    """With several processes: batch statistics over all of them."""

    log_every: int = Field(50, gt=0)
    log_every_s: float | None = Field(None, gt=0)
    """Seconds between logs instead of steps; so for checkpoints and pictures, when a log is due."""

    checkpoint_every: int = Field(2000, gt=0)
    checkpoint_every_s: float | None = Field(None, gt=0)
    views_every: int = Field(10_000, gt=0)
    """Steps between pictures of the augmented views."""

    views_every_s: float | None = Field(None, gt=0)
    tracker: Literal["none", "wandb", "mlflow"] = "none"
    """Where the values go besides the run's folder and TensorBoard, by the extra of that name."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps and self.segments:
            raise ValueError("steps and segments are both given; leave one of them out")
        return self

    def n_steps(self, epoch_segments: float) -> int:
        """Optimiser steps of the run, for so many segments an epoch."""
        segments = self.segments or self.epochs * epoch_segments
        return self.steps or max(1, round(segments / self.batch_size))


class Recipe(Section):
    """One run; every field has the value of BYOL-A v2 unless the document says otherwise."""

    name: str = "byol-a-v2"
    data: Data = Data()
    encoder: Encoder = Encoder()
    augment: Augment = Augment()
    objective: Method = byol.Settings()
    optimizer: Optimizer = Optimizer()
    probe: Probe = Probe()
    run: Run = Run()

    def for_processes(self, n: int) -> "Recipe":
        """This recipe with the batch that so many processes share, in whole parts of it."""
        wanted = (self.run.batch_per_gpu or 0) * n or self.run.batch_size
        parts = n * self.run.accumulate
        batch = {"batch_size": -(-wanted // parts) * parts}
        return self.model_copy(update={"run": self.run.model_copy(update=batch)})

    def scaled(self) -> "Recipe":
        """This recipe with the rates that its batch size asks for; see `Run.base_batch_size`."""
        if self.run.base_batch_size is None:
            return self
        ratio = self.run.batch_size / self.run.base_batch_size
        is_adam = self.optimizer.name in ("adam", "adamw")
        optimizer = {"lr": self.optimizer.lr * (ratio**0.5 if is_adam else ratio)}
        objective = {"ema_decay": self.objective.ema_decay**ratio}
        return self.model_copy(
            update={
                "optimizer": self.optimizer.model_copy(update=optimizer),
                "objective": self.objective.model_copy(update=objective),
                "run": self.run.model_copy(update={"base_batch_size": None}),
            }
        )


def named_recipes() -> list[str]:
    """Names of the recipes that ship with the project."""
    folder = files("training") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def for_device(kind: str) -> str:
    """The name of the recipe for a kind of device, "cuda" or "cpu"."""
    return "gpu" if kind == "cuda" else "cpu"


def load(name_or_path: str, settings: list[str] | None = None) -> Recipe:
    """A named recipe or a TOML file, with `section.key=value` settings laid over it.

    Raises:
        RecipeError: unknown name, unreadable file, unknown key or a value outside its bounds.
    """
    name_or_path = OLD_NAMES.get(name_or_path, name_or_path)
    document = _read(name_or_path)
    document.setdefault("name", Path(name_or_path).stem)
    changes: dict[str, Any] = {}
    for setting in settings or []:
        _lay_over(changes, setting)
    _change_method(document, changes)
    for setting in settings or []:
        _lay_over(document, setting)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        lines = [f"  {_place(e['loc'])}: {_complaint(e)}" for e in error.errors()]
        raise RecipeError(f"recipe {name_or_path} is not valid:\n" + "\n".join(lines)) from error


def _read(name_or_path: str) -> dict[str, Any]:
    if name_or_path in named_recipes():
        text = (files("training") / "recipes" / f"{name_or_path}.toml").read_text()
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text("utf-8-sig", "replace")  # Windows begins with a mark
    else:
        known = ", ".join(named_recipes())
        names = [*named_recipes(), BY_HARDWARE]
        raise RecipeError(
            f"no recipe {name_or_path!r}{did_you_mean(name_or_path, names)}; give a TOML "
            f"file, a run's recipe.json, or one of: {known}"
        )
    is_json = name_or_path.endswith(".json")  # as a run's folder holds it
    try:
        document: dict[str, Any] = json.loads(text) if is_json else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = "JSON" if is_json else "TOML"
        raise RecipeError(f"recipe {name_or_path} is not {kind}: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(
            f"recipe {name_or_path} holds a {type(document).__name__}; expected sections, as "
            "a run's recipe.json has them"
        )
    return document


def _lay_over(document: dict[str, Any], setting: str) -> None:
    """Put `section.key=value` into the document; the value is TOML, or text where it is none."""
    path, separator, text = setting.partition("=")
    if not separator:
        raise RecipeError(f"setting {setting!r}; expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, key = path.strip().split(".")
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise RecipeError(f"setting {setting!r}: {section} is a value, not a section")
    document[key] = value


def _change_method(document: dict[str, Any], changes: dict[str, Any]) -> None:
    """Where a setting names another method, leave the options of the document's method behind."""
    section, change = document.get("objective", {}), changes.get("objective", {})
    if isinstance(section, dict) and isinstance(change, dict):
        before = section.get("name", DEFAULT)
        if change.get("name", before) != before:
            document["objective"] = without_options(section)


def _complaint(error: Mapping[str, Any]) -> str:
    """One pydantic error in a person's words: the value, and what is expected of it."""
    if error["type"] == "extra_forbidden":
        return "there is no such setting" + did_you_mean(_place(error["loc"]), settings_of(Recipe))
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error["input"]
    if error["type"] == "model_type":
        return f"is {given!r}; expected a section, settings with values"
    if isinstance(given, dict):  # a section whose settings do not go together
        return message
    return f"is {given!r}; {message[:1].lower()}{message[1:]}"


def _place(location: tuple[int | str, ...]) -> str:
    """Dotted name of a value; pydantic puts the method's name between section and key."""
    inside = location[0] == "objective" and len(location) > 1 and location[1] in METHODS
    parts = (location[0], *location[2:]) if inside else location
    return ".".join(map(str, parts))
