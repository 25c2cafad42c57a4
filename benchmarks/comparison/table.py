"""The rows of a comparison as a Markdown table for each group."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from comparison.plan import LOG_MEL, UNTRAINED, Plan
from comparison.row import Protocol, Row

PROBES = {"linear": "linear probe", "knn": "kNN"}
ROWS_OF_ALL = (UNTRAINED, LOG_MEL)


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each variant that have scores, in the order of their seeds."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.scores:
            found.setdefault(row.variant, []).append(row)
    return found


def tasks_of(rows: Sequence[Row]) -> list[str]:
    """The names of the tasks, in the order of the rows."""
    return list(next((row.scores for row in rows if row.scores), {}))


def accuracies(rows: Sequence[Row], task: str, probe: str) -> list[float]:
    """Accuracy in % of each row on a task; "mean": over the tasks."""
    return [
        100 * float(np.mean([s[probe] for s in row.scores.values()]))
        if task == "mean"
        else 100 * row.scores[task][probe]
        for row in rows
    ]


def deviation_over_seeds(rows: Sequence[Row], task: str, probe: str) -> float:
    """Standard deviation over seeds, pooled over the variants that have several; nan if none."""
    squares, freedom = 0.0, 0
    for variant, mine in by_variant(rows).items():
        if variant != UNTRAINED and len(mine) > 1:
            values = accuracies(mine, task, probe)
            squares += float(np.sum((np.array(values) - np.mean(values)) ** 2))
            freedom += len(mine) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def markdown(plan: Plan, protocol: Protocol, rows: Sequence[Row]) -> str:
    """The whole document."""
    tasks = [*tasks_of(rows), "mean"]
    parts = ["# Methods, side by side", _opening(protocol, rows, tasks)]
    for group in plan.groups:
        here = [name for name in group.variants if any(row.variant == name for row in rows)]
        if not set(here) - {plan.baseline}:
            continue
        others = [name for name in ROWS_OF_ALL if any(row.variant == name for row in rows)]
        parts.append(f"## {group.title}")
        parts += [_table(plan, rows, [*here, *others], tasks, probe) for probe in PROBES]
    return "\n\n".join(parts) + "\n"


def _opening(protocol: Protocol, rows: Sequence[Row], tasks: list[str]) -> str:
    n_seeds = sorted({len(mine) for mine in by_variant(rows).values()})
    text = (
        "Written by `benchmarks/compare_methods.py`; every number is in `compare_methods.json`. "
        f"Every variant has seen the same {protocol.segments:,} segments, in the same order for a "
        "seed and a batch size; smaller batches have taken more steps with them. Accuracy in %, "
        "mean over the rounds of a task"
    )
    if protocol.clips:
        text += f", each on at most {protocol.clips:,} of its clips, the same for all"
    text += "; ± is the standard deviation over seeds, where there are several"
    text += f" ({' or '.join(map(str, n_seeds))} here). " if n_seeds else ". "
    noise = deviation_over_seeds(rows, "mean", "linear")
    if not math.isnan(noise):
        knn = deviation_over_seeds(rows, "mean", "knn")
        text += (
            f"Over seeds the mean of the tasks has a standard deviation of {noise:.2f} points by "
            f"the linear probe and {knn:.2f} by kNN, pooled over variants with several: where one "
            f"seed stands beside one seed, less than {2 * math.sqrt(2) * noise:.1f} and "
            f"{2 * math.sqrt(2) * knn:.1f} points are no difference."
        )
    return text


def _table(
    plan: Plan, rows: Sequence[Row], variants: Sequence[str], tasks: Sequence[str], probe: str
) -> str:
    head = ["variant", "seeds", "steps", "loss", "rank", *tasks]
    lines = [f"| {PROBES[probe]}: {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in variants:
        mine = by_variant(rows).get(name, [])
        if not mine:
            reason = next(row.failed for row in rows if row.variant == name)
            lines.append(f"| {name} | | | | | {reason} |" + " |" * (len(tasks) - 1))
            continue
        n_failed = sum(row.variant == name for row in rows) - len(mine)
        seeds = f"{len(mine)}, {n_failed} more failed" if n_failed else str(len(mine))
        cells = [f"**{name}**" if name == plan.baseline else name, seeds]
        cells.append(str(mine[0].steps) if name not in ROWS_OF_ALL else "")
        cells += [_mean(mine, "{:.2f}", lambda row: row.loss)]
        cells += [_mean(mine, "{:.1f}", lambda row: row.effective_rank)]
        cells += [_cell(accuracies(mine, task, probe)) for task in tasks]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(rows: Sequence[Row], form: str, value: Callable[[Row], float | None]) -> str:
    known = [v for v in map(value, rows) if v is not None]
    return form.format(float(np.mean(known))) if known else ""


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"
