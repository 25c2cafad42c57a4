"""Several runs of one recipe as one table: seeds, and settings that vary."""

import itertools
import json
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table

from models.atomic import replacing
from models.lock import locked
from training import checkpoint, loop, resuming
from training import recipe as recipes
from training.data.corpus import Corpus
from training.recipe import Recipe, RecipeError
from training.record import RECIPE_NAME, read_facts, read_metrics
from training.run import TrainingError
from training.verdict import PROBE, untrained_score

TABLE = "sweep"
LOCK_NAME = "sweep.lock"
FIRST_SEED = 42
SEED = "run.seed"  # which a sweep sets itself


@dataclass(frozen=True)
class Variant:
    """Settings over the recipe, in the order in which they vary; no settings: the recipe itself."""

    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        """For a folder and a row."""
        parts = [re.sub(r"[^\w.=+-]", "", part) for part in self.settings]
        return ",".join(parts) or "recipe"


@dataclass(frozen=True)
class Row:
    """What the runs of a variant came to: means over its seeds, and the deviations."""

    name: str
    runs: int
    failed: int
    probe: float | None
    """Mean accuracy of the probe at the end."""

    probe_std: float | None
    untrained: float | None
    loss: float | None
    segments_per_s: float | None
    seconds: float | None


def variants(vary: Sequence[str]) -> list[Variant]:
    """All combinations of `section.key=[value, ...]`.

    Raises:
        RecipeError: not of that form, or two variants that would share a folder.
    """
    axes = [_axis(text) for text in vary]
    varied = [setting_name(text) for text in vary]
    for name in varied:
        if varied.count(name) > 1:
            raise RecipeError(f"--vary {name} is given twice; give all of its values in one list")
    found = [Variant(tuple(chosen)) for chosen in itertools.product(*axes)]
    names = [variant.name for variant in found]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(
                f"two variants are called {name}; give each value once, and values that differ in "
                "more than blanks and signs, which the name of a folder leaves out"
            )
    return found


def setting_name(text: str) -> str:
    """The `section.key` of `section.key=value`."""
    return text.partition("=")[0].strip()


def _axis(text: str) -> list[str]:
    name, values = setting_name(text), text.partition("=")[2]
    try:
        found = tomllib.loads(f"values = {values}")["values"]
    except tomllib.TOMLDecodeError:
        found = None
    if not isinstance(found, list) or not found:
        raise RecipeError(f"--vary {text}: expected section.key=[value, value], in TOML")
    return [f"{name}={_toml(value)}" for value in found]


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, dict):
        inside = (f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def sweep(
    recipe: str,
    settings: Sequence[str],
    chosen: Sequence[Variant],
    seeds: int,
    corpus: Corpus,
    folder: Path,
    device: torch.device,
    console: Console,
) -> list[Row]:
    """Train every variant with every seed, one after the other; sweep.md is written after each.

    A run that is done is not trained again, one that was stopped goes on. A run that diverges is
    counted, and the others go on.

    Raises:
        RecipeError: a slip in a setting, or a seed among them.
        TrainingError: the folder holds a run of other settings or on another store, or another
            process sweeps in it.
    """
    for name in map(setting_name, (*settings, *chosen[0].settings)):
        if name == SEED:
            raise RecipeError(
                f"a sweep sets {SEED} itself, from {FIRST_SEED} on: leave it out, and say with "
                "--seeds how many runs each variant has"
            )
    loaded = []  # all of it first, so that a slip is told before hours have passed
    for variant in chosen:
        each = [recipes.load(recipe, _of(settings, variant, seed)) for seed in _seeds(seeds)]
        places = [folder / variant.name / f"seed-{one.run.seed}" for one in each]
        for one, place in zip(each, places, strict=True):
            _refuse_another(one, corpus, place)
        loaded.append((variant, each, places))
    folder.mkdir(parents=True, exist_ok=True)
    message = f"another process sweeps in {folder}; wait for it to end, or name another folder"
    with locked(folder / LOCK_NAME, TrainingError(message)):
        return _rows(loaded, corpus, folder, device, console)


def _rows(
    loaded: Sequence[tuple[Variant, list[Recipe], list[Path]]],
    corpus: Corpus,
    folder: Path,
    device: torch.device,
    console: Console,
) -> list[Row]:
    """Train what is not done yet; fewer rows than variants if asked to stop."""
    rows: list[Row] = []
    for variant, each, places in loaded:
        for one, place in zip(each, places, strict=True):
            if _state(place).get("state") == "finished":
                continue
            console.print(f"{variant.name}, seed {one.run.seed}", markup=False, highlight=False)
            resume = (place / checkpoint.LAST).exists()
            if device.type == "cuda":  # the compiler gives up on a function that changes too often
                torch.compiler.reset()
            try:
                if not loop.train(one, corpus, place, device, resume=resume, console=console):
                    return rows  # asked to stop
            except TrainingError as error:
                console.print(f"{variant.name}: {error}", markup=False, style="red")
        rows.append(summary(variant.name, places))
        write(rows, folder)
    return rows


def _seeds(n: int) -> Iterator[int]:
    yield from range(FIRST_SEED, FIRST_SEED + n)


def _of(settings: Sequence[str], variant: Variant, seed: int) -> list[str]:
    return [*settings, *variant.settings, f"{SEED}={seed}"]


def _refuse_another(recipe: Recipe, corpus: Corpus, place: Path) -> None:
    """Refuse a place whose run is not this one: its result would stand in the table as this one's.

    Raises:
        TrainingError: naming what differs.
    """
    recorded = place / RECIPE_NAME
    if not recorded.is_file():
        return
    free = {name for name in resuming.FREE if not name.startswith("probe.")}
    changed = resuming.changes(recipes.load(str(recorded)), recipe.for_processes(1), free)
    if read_facts(place / "data.json").get("fingerprint", corpus.fingerprint) != corpus.fingerprint:
        changed.append("the store is another one")
    if changed:
        raise TrainingError(
            f"{place} holds a run of other settings: {'; '.join(changed)}. Go on with those, or "
            "name another folder with --out"
        )


def _state(folder: Path) -> dict[str, Any]:
    return read_facts(folder / "state.json")


def summary(name: str, folders: Sequence[Path]) -> Row:
    """The row of a variant, from the records of its runs."""
    done = [folder for folder in folders if _state(folder).get("state") == "finished"]
    metrics = [read_metrics(folder) for folder in done]
    scores = [score for lines in metrics if (score := _last_score(lines)) is not None]
    mean = _mean(scores)
    deviation = None
    if mean is not None and len(scores) > 1:
        deviation = math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
    first = [score for lines in metrics if (score := untrained_score(lines)) is not None]
    return Row(
        name=name,
        runs=len(done),
        failed=len(folders) - len(done),
        probe=mean,
        probe_std=deviation,
        untrained=_mean(first),
        **{key: _mean(_last(metrics, key)) for key in ("loss", "segments_per_s", "seconds")},
    )


def _last(metrics: Sequence[list[dict[str, Any]]], name: str) -> list[float]:
    """The last value of each run."""
    values = [[line[name] for line in lines if name in line] for lines in metrics]
    return [found[-1] for found in values if found]


def _last_score(lines: Sequence[dict[str, Any]]) -> float | None:
    """Mean over the tasks of the last probe."""
    scores = [[v for n, v in line.items() if n.startswith(PROBE)] for line in lines]
    asked = [found for found in scores if found]
    return _mean(asked[-1]) if asked else None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


COLUMNS = ("variant", "runs", "failed", "probe %", "untrained %", "loss", "segments/s", "minutes")


def cells(row: Row) -> list[str]:
    """A row in words, as `COLUMNS` has them."""
    probe = _percent(row.probe)
    if row.probe_std is not None:
        probe += f" ± {100 * row.probe_std:.1f}"
    minutes = None if row.seconds is None else row.seconds / 60
    numbers = [
        _number(row.loss, 3),
        _number(row.segments_per_s, 0),
        _number(minutes, 1),
    ]
    return [row.name, str(row.runs), str(row.failed), probe, _percent(row.untrained), *numbers]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def table(rows: Sequence[Row]) -> Table:
    """The rows for a screen."""
    shown = Table(Column(COLUMNS[0], overflow="fold"), *COLUMNS[1:], box=None)
    for row in rows:
        shown.add_row(*cells(row))
    return shown


def write(rows: Sequence[Row], folder: Path) -> None:
    """The rows as sweep.md and sweep.json."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)]
    texts = {
        "md": "".join(f"| {' | '.join(line)} |\n" for line in lines),
        "json": json.dumps([asdict(row) for row in rows], indent=1) + "\n",
    }
    for kind, text in texts.items():
        with replacing(folder / f"{TABLE}.{kind}") as temporary:
            temporary.write_text(text)
