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
from training import checkpoint, loop
from training import recipe as recipes
from training.data.corpus import Corpus
from training.recipe import RecipeError
from training.record import read_metrics
from training.run import TrainingError
from training.verdict import PROBE, untrained_score

TABLE = "sweep"
FIRST_SEED = 42


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
        RecipeError: not of that form.
    """
    axes = [_axis(text) for text in vary]
    return [Variant(tuple(chosen)) for chosen in itertools.product(*axes)]


def _axis(text: str) -> list[str]:
    name, _, values = text.partition("=")
    try:
        found = tomllib.loads(f"values = {values}")["values"]
    except tomllib.TOMLDecodeError:
        found = None
    if not isinstance(found, list) or not found:
        raise RecipeError(f"--vary {text}: expected section.key=[value, value], in TOML")
    return [f"{name}={json.dumps(value)}" for value in found]


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
    """Train every variant with every seed, one after the other; table.md is written after each.

    A run that is done is not trained again, one that was stopped goes on. A run that diverges is
    counted, and the others go on.
    """
    loaded = [  # so that a slip is told before hours have passed
        (variant, [recipes.load(recipe, _of(settings, variant, seed)) for seed in _seeds(seeds)])
        for variant in chosen
    ]
    rows: list[Row] = []
    for variant, each in loaded:
        places = [folder / variant.name / f"seed-{r.run.seed}" for r in each]
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
    return [*settings, *variant.settings, f"run.seed={seed}"]


def _state(folder: Path) -> dict[str, Any]:
    path = folder / "state.json"
    state: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return state


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
