"""What a run's record says in sentences: did the encoder get better, and what to do next."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.terminal import counted
from training.record import read_facts, read_metrics

PROBE = "probe/"
CLOSE = 0.01  # a difference of accuracies that is none


def verdict(metrics: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> list[str]:
    """Sentences for a run whose record has these lines, and which ended, or goes on, like this."""
    return [*_ending(state), *_alarms(metrics), _quality(metrics)]


def of_folder(folder: Path) -> list[str]:
    """The verdict on the run in a folder."""
    return verdict(read_metrics(folder), read_facts(folder / "state.json"))


def _ending(state: Mapping[str, Any]) -> list[str]:
    name = state.get("state", "running")
    if name == "failed":
        message = state.get("message", "")
        return [f"It failed: {message}. --resume goes on from the checkpoint, in the same way."]
    if name == "stopped":
        step, total = state["step"], state["total_steps"]
        return [f"It was stopped at step {step:,} of {total:,}; --resume goes on exactly."]
    return ["It has not ended yet."] if name == "running" else []


def _alarms(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    n = sum("alarm" in line for line in metrics)
    if not n:
        return []
    return [
        f"There {'was' if n == 1 else 'were'} {counted(n, 'alarm')}: the encoder may give all "
        "sounds nearly the same vector. A lower rate, a larger batch or batch norm in "
        "`objective.norm` help."
    ]


def _quality(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What the probes on the way say; without them nothing is known."""
    scores: dict[str, list[float]] = {}
    for line in metrics:
        for name, value in line.items():
            if name.startswith(PROBE):
                scores.setdefault(name.removeprefix(PROBE), []).append(value)
    if not scores:
        return (
            "Whether the encoder is any good was not measured on the way (probe.tasks): export it, "
            "and viola evaluate NAME.onnx default TASK --untrained --log-mel tells."
        )
    first, last, best = (_mean(pick(v) for v in scores.values()) for pick in (_first, _last, max))
    untrained = untrained_score(metrics)
    sentence = f"By the probe on {', '.join(scores)} it went from {_percent(first)} "
    sentence += "to " if untrained is None else "untrained to "
    sentence += f"{_percent(last)}"
    if last <= first - CLOSE:
        return f"{sentence}: worse than it began. Train longer, or with a lower rate."
    if last <= first + CLOSE:
        return f"{sentence}: no better than it began. Train longer."
    if last <= best - CLOSE:
        return f"{sentence}, and had been at {_percent(best)}: export best.pt."
    return f"{sentence}: better than it began, and still at its best; longer may help further."


def untrained_score(metrics: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean accuracy of the probe before the first step; None if it was not asked then."""
    for line in metrics:
        found = [value for name, value in line.items() if name.startswith(PROBE)]
        if found and line["step"] == 0:
            return _mean(found)
    return None


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _first(values: Sequence[float]) -> float:
    return values[0]


def _last(values: Sequence[float]) -> float:
    return values[-1]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
