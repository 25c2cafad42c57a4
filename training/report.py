"""The report of a run: one page made of what the run's folder holds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models import page
from models.atomic import replacing
from training import pictures
from training.collapse import MAX_COSINE, MAX_POSITIVE_SHARE, MIN_RANK, MIN_STD
from training.pictures import Curve
from training.record import VIEWS_NAME, read_facts, read_metrics
from training.verdict import verdict

NAME = "report.html"
RUNNING = {"state": "running"}
_LIMITS = {
    "projection_std": MIN_STD,
    "effective_rank": MIN_RANK,
    "prediction_cosine": MAX_COSINE,
    "positive_share": MAX_POSITIVE_SHARE,
}
_TITLES = {
    "loss": ("Loss", "Falls while the two views of a sound become easier to tell from others."),
    "projection_std": (
        "Spread of vectors",
        "1: they point everywhere; 0: all sounds have the same vector (a collapse).",
    ),
    "effective_rank": (
        "Directions in use",
        "How many independent directions the vectors of a batch span (effective rank).",
    ),
    "prediction_cosine": (
        "Agreement of the views",
        "Cosine of prediction and target; 1 throughout is suspicious.",
    ),
    "lr": ("Learning rate", ""),
    "ema_decay": ("Inertia of the target network", "Share of itself that it keeps each step."),
    "grad_norm": ("Size of the gradient", "Jumps mean unsteady training."),
    "segments_per_s": ("Speed", "Segments of sound a second."),
    "mfu": (
        "Use of the device",
        "MFU: arithmetic of the networks over what the device can do; what is left goes to data, "
        "augmentation, the optimiser and memory.",
    ),
    "data_wait": (
        "Waiting for data",
        "Share of the time; above 0.1: more `data.workers`, or a store that fits into the device.",
    ),
    "peak_memory_mib": ("Most memory so far, MiB", "Of the GPU, or of the process on a CPU."),
}
Points = list[tuple[float, float]]


def write(folder: Path) -> Path:
    """Write the page of the run in `folder`, finished or not, and say where it is.

    Raises:
        RecordError: the record holds something else than a run wrote.
    """
    metrics = read_metrics(folder)
    recipe, state, data, environment = (
        read_facts(folder / f"{name}.json") for name in ("recipe", "state", "data", "environment")
    )
    parts = [page.verdict(verdict(metrics, state))]
    parts += [page.facts(_summary(recipe, state or RUNNING, data, environment, metrics))]
    alarms = [line for line in metrics if "alarm" in line]
    parts += [page.paragraph(f"Step {a['step']}: {a['alarm']}.", "alarm") for a in alarms]
    drawings = _drawings(metrics)
    if drawings:
        parts += [page.heading("How it went"), *_curves(drawings)]
    parts += _views(folder)
    parts += [page.heading("Data, hours by source"), page.facts(_hours(data))]
    parts += [page.heading("Recipe"), page.code(json.dumps(recipe, indent=2))]
    parts += [page.heading("Environment"), page.code(json.dumps(environment, indent=2))]
    path = folder / NAME
    with replacing(path) as temporary:
        temporary.write_text(page.page(f"{recipe.get('name', 'A run')}: a run", parts))
    return path


def _summary(
    recipe: dict[str, Any],
    state: dict[str, Any],
    data: dict[str, Any],
    environment: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
) -> dict[str, object]:
    steps = _points(metrics)
    ended = f"{state['state']}: {state['message']}" if state.get("message") else state["state"]
    summary: dict[str, object] = {"state": ended}
    if "step" in state:
        summary["steps"] = f"{state['step']:,} of {state['total_steps']:,}"
    if data:
        summary["data"] = f"{data['clips']:,} clips, {data['hours']:,.2f} h"
    if recipe:
        summary["network"] = f"{recipe['encoder']['name']}, {recipe['encoder']['embed_dim']} values"
    if "seconds" in steps:
        summary["time spent training"] = _duration(steps["seconds"][-1][1])
    for name, points in sorted(steps.items()):
        if name.startswith("probe/"):
            step, best = max(points, key=lambda point: point[1])
            last = points[-1][1]
            summary[name] = f"{100 * last:.1f} %, best {100 * best:.1f} % at step {step:,.0f}"
    if environment:
        gpus = ", ".join(environment["gpus"]) or "none"
        summary |= _modes(environment.get("modes", {}))
        summary["machine"] = f"{environment['host']}, GPUs: {gpus}"
        summary["commit"] = environment["commit"]
    return summary


def _modes(modes: dict[str, Any]) -> dict[str, object]:
    """How the run computes, and why not otherwise; older records do not tell."""
    if not modes:
        return {}
    computes = [modes["precision"], f"on {modes['device']}"]
    computes += [name for name in ("compiled", "captured") if modes[name]]
    computes += [f"{modes['processes']} processes"] if modes["processes"] > 1 else []
    told: dict[str, object] = {"computes in": ", ".join(computes)}
    return told | {f"not {name}": reason for name, reason in modes["why_not"].items()}


def _points(metrics: Sequence[dict[str, Any]]) -> dict[str, Points]:
    """The values of each metric over the steps."""
    points: dict[str, Points] = {}
    for line in metrics:
        for name, value in line.items():
            if name not in ("step", "alarm"):
                points.setdefault(name, []).append((line["step"], value))
    return points


def _drawings(metrics: Sequence[dict[str, Any]]) -> list[Curve]:
    points = _points(metrics)
    probes = {
        name.removeprefix("probe/"): values
        for name, values in points.items()
        if name.startswith("probe/")
    }
    drawings = [
        Curve(title, {name: points[name]}, _limit(name, points[name]), about)
        for name, (title, about) in _TITLES.items()
        if name in points
    ]
    others = [
        name for name in points if name not in _TITLES and name != "seconds" and "/" not in name
    ]  # what a method adds
    drawings += [
        Curve(name.replace("_", " "), {name: points[name]}, _limit(name, points[name]))
        for name in others
    ]
    if probes:
        title = (
            "accuracy of the probe" if len(probes) > 1 else f"accuracy of the probe, {[*probes][0]}"
        )
        drawings.append(Curve(title, probes))
    return drawings


def _limit(name: str, points: Points) -> float | None:
    """Where the alarm begins, if the values come anywhere near."""
    limit = _LIMITS.get(name)
    if limit is None:
        return None
    near = any(abs(value - limit) < 0.5 * limit for _, value in points)
    return limit if near else None


def _curves(drawings: Sequence[Curve]) -> list[str]:
    """A picture a curve, beside one another or below one another as the screen is wide."""
    about = page.paragraph("Over the steps of the run; dashed: where an alarm begins.", "facts")
    return [about, page.tiles([page.picture(pictures.curve(d), d.about) for d in drawings])]


def _duration(seconds: float) -> str:
    """Seconds in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _views(folder: Path) -> list[str]:
    """The first and the last picture of the augmented views."""
    paths = sorted((folder / VIEWS_NAME).glob("step-*.png"))
    parts = [page.heading("What the augmentations make of a segment")] if paths else []
    for path in dict.fromkeys([*paths[:1], *paths[-1:]]):
        step = int(path.stem.removeprefix("step-"))
        caption = f"Step {step:,}: log-mels after each augmentation, mel bands upwards."
        parts.append(page.picture(path.read_bytes(), caption, wide=True))
    return parts


def _hours(data: dict[str, Any]) -> dict[str, object]:
    sources: dict[str, float] = data.get("sources", {})
    return {name: f"{hours:.2f}" for name, hours in sorted(sources.items(), key=lambda s: -s[1])}
