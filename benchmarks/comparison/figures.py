"""The rows of a comparison as figures: points by task for each group, curves over batch sizes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison.plan import LOG_MEL, UNTRAINED, Plan
from comparison.row import Row
from comparison.table import accuracies, by_variant, tasks_of
from models.atomic import replacing

DPI = 120
INK, GRID = "#333333", "#dddddd"
COLOURS = {"linear": "#7a3b9e", "knn": "#e08214"}
LABELS = {"linear": "linear probe", "knn": "kNN"}
MARKERS = {"linear": "o", "knn": "D"}
METHOD_COLOURS = ("#7a3b9e", "#1b7837")


def draw(out: Path, plan: Plan, rows: Sequence[Row]) -> list[Path]:
    """A PNG file for each group with rows: points, or curves where batch sizes differ."""
    found, made = by_variant(rows), []
    tasks = [*tasks_of(rows), "mean"]
    for group in plan.groups:
        names = [name for name in group.variants if name in found]
        if set(names) <= {plan.baseline}:
            continue
        sizes = {found[name][0].batch_size for name in names}
        if len(sizes) > 1:
            figure = _curves(found, names, tasks)
        else:
            figure = _points(found, names, tasks, plan.baseline)
        figure.suptitle(group.title, x=0.01, ha="left", fontsize=11, color=INK)
        path = out / f"compare_{group.name}.png"
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI)
        made.append(path)
    return made


def _points(
    found: dict[str, list[Row]], names: Sequence[str], tasks: Sequence[str], baseline: str
) -> Figure:
    """A panel a task; a line a variant, with a point for the mean over seeds and a bar to each."""
    shown = [*names, *(name for name in (UNTRAINED, LOG_MEL) if name in found)]
    figure = Figure(figsize=(2.4 * len(tasks) + 1.6, 0.27 * len(shown) + 1.5), layout="constrained")
    panels = list(figure.subplots(1, len(tasks), sharey=True, squeeze=False).flat)
    y = np.arange(len(shown))[::-1]
    for axis, task in zip(panels, tasks, strict=True):
        for probe, colour in COLOURS.items():
            values = [accuracies(found[name], task, probe) for name in shown]
            means = [float(np.mean(v)) for v in values]
            ends = [[m - min(v) for m, v in zip(means, values, strict=True)]]
            ends.append([max(v) - m for m, v in zip(means, values, strict=True)])
            axis.errorbar(
                means, y, xerr=ends, fmt=MARKERS[probe], color=colour, markersize=4.5,
                elinewidth=1.2, capsize=2, label=LABELS[probe],
            )  # fmt: skip
            if baseline in shown:
                axis.axvline(means[shown.index(baseline)], color=colour, linewidth=0.8, alpha=0.5)
        axis.set_title(task.replace("_", " "), fontsize=9, color=INK, loc="left")
        _plain(axis)
    panels[0].set_yticks(y, shown, fontsize=8)
    panels[0].set_ylim(-0.6, len(shown) - 0.4)
    figure.supxlabel("accuracy, %; bars reach to the seeds", fontsize=8, color=INK)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=8, loc="upper right", ncols=2, frameon=False)
    return figure


def _curves(found: dict[str, list[Row]], names: Sequence[str], tasks: Sequence[str]) -> Figure:
    """A panel a task and probe; a curve a method over its batch sizes."""
    methods: dict[str, list[str]] = {}
    for name in names:  # byol, byol-64 and byol-32 are one method
        methods.setdefault(name.removesuffix(f"-{found[name][0].batch_size}"), []).append(name)
    figure = Figure(figsize=(2.4 * len(tasks) + 0.6, 4.6), layout="constrained")
    panels = figure.subplots(len(LABELS), len(tasks), squeeze=False)
    for line, probe in enumerate(LABELS):
        for axis, task in zip(panels[line], tasks, strict=True):
            for (method, variants), colour in zip(methods.items(), METHOD_COLOURS, strict=False):
                points = sorted(
                    (found[name][0].batch_size, accuracies(found[name], task, probe))
                    for name in variants
                )
                x = [size for size, _ in points]
                axis.plot(
                    x, [np.mean(values) for _, values in points], "o-", color=colour, label=method
                )
                for size, values in points:
                    axis.plot([size] * len(values), values, "_", color=colour, markersize=9)
                axis.set_xscale("log", base=2)
                axis.set_xticks(x, [str(size) for size in x])
            if not line:
                axis.set_title(task.replace("_", " "), fontsize=9, color=INK, loc="left")
            _plain(axis)
        panels[line][0].set_ylabel(f"{LABELS[probe]}, %", fontsize=8, color=INK)
    figure.supxlabel("batch size, the same number of segments", fontsize=8, color=INK)
    panels[0][0].legend(fontsize=7, frameon=False)
    return figure


def _plain(axis: Axes) -> None:
    axis.tick_params(labelsize=7, colors=INK)
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
