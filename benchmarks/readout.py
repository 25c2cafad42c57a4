"""Which readout an encoder should have: forms side by side, on the training folds of tasks.

    python benchmarks/readout.py CHECKPOINT STORE TASK.csv[@SECONDS]...
    python benchmarks/readout.py MODEL.onnx STORE TASK.csv[@SECONDS]...

The last fold of each task is never looked at, so that its scores stay honest; the other folds are
left out in turn. Linear: ridge regression on one-hot labels with its strength from a held-out fold;
kNN: 10 neighbours by cosine; 5-shot and search (mAP@10) as `viola evaluate` measures them.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from models.labelled.splits import Round
from models.labelled.tasks import Task
from models.windows import unit
from training import checkpoint, readout, warm_start
from training.commands.writing import EMBED_DIM
from training.data.corpus import Corpus
from training.evaluation import neighbours, probe, scores
from training.evaluation.task_names import open_tasks
from training.projection import Form, project

Floats = NDArray[np.float32]
EXPORTED = Form(EMBED_DIM)


def weighed(**weights: float) -> Form:
    """The form of exports with other weights."""
    return replace(EXPORTED, weights=(*(dict(EXPORTED.weights) | weights).items(),))


FORMS = {
    "standardised": Form(EMBED_DIM, power=0.0, weights=()),
    "power 0.25": Form(EMBED_DIM, power=0.25),
    "as exported": EXPORTED,
    "without autocovariances": weighed(autocovariance=0.0),
    "autocovariances at 0.2": weighed(autocovariance=0.2),
    "autocovariances at 0.5": weighed(autocovariance=0.5),
    "log-mels at 2": weighed(**{"log-mel": 2.0}),
    "floor 0.02": Form(EMBED_DIM, floor=0.02),
    "floor 0.5": Form(EMBED_DIM, floor=0.5),
    "disturbances left": Form(EMBED_DIM, within_power=0.0),
    "disturbances at 0.375": Form(EMBED_DIM, within_power=0.375),
    "disturbances at 0.5": Form(EMBED_DIM, within_power=0.5),
    "disturbances at 0.5, floor 1": Form(EMBED_DIM, within_power=0.5, within_floor=1.0),
    "2048 values": Form(2048),
    "1536 values": Form(1536),
    "512 values": Form(512),
    "256 values": Form(256),
}
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of ridge, times the number of clips
console = Console(stderr=True)


@dataclass(frozen=True)
class Seen:
    """A task without its last fold: labels (N, K), pooled layers (N, P), and its rounds."""

    name: str
    labels: NDArray[np.bool_]
    pooled: Floats
    rounds: tuple[Round, ...]


def without_last_fold(task: Task, pooled: Floats) -> Seen:
    hidden = task.rounds[-1].test
    rounds = []
    for one, following in pairwise([*task.rounds[:-1], task.rounds[0]]):
        valid = np.setdiff1d(following.test, hidden)
        train = np.setdiff1d(np.concatenate([one.train, one.valid]), np.union1d(hidden, valid))
        rounds.append(Round(one.name, train, valid, one.test))
    return Seen(task.name, task.one_hot, pooled, tuple(rounds))


def ridge(vectors: Floats, labels: NDArray[np.bool_], round_: Round) -> Floats:
    """Scores of the test part, (n test, K)."""
    mean, std = vectors[round_.train].mean(0), vectors[round_.train].std(0) + 1e-6
    x = ((vectors - mean) / std).astype(np.float64)
    y = labels.astype(np.float64) - labels[round_.train].mean(0)

    def fits(rows: NDArray[np.int64], strengths: Sequence[float]) -> list[NDArray[np.float64]]:
        values, axes = np.linalg.eigh(x[rows] @ x[rows].T)
        inner = axes.T @ y[rows]
        return [x[rows].T @ (axes @ (inner / (values + s * len(rows))[:, None])) for s in strengths]

    right = [
        scores.hits(labels[round_.valid], x[round_.valid] @ w).mean()
        for w in fits(round_.train, STRENGTHS)
    ]
    both = np.concatenate([round_.train, round_.valid])
    (best,) = fits(both, [STRENGTHS[int(np.argmax(right))]])
    return (x[round_.test] @ best).astype(np.float32)


def accuracy(seen: Seen, answer: Callable[[Round], Floats]) -> float:
    values = [scores.measure(seen.labels[r.test], answer(r), False) for r in seen.rounds]
    return 100 * float(np.mean(values))


def row(seen: Seen, vectors: Floats) -> tuple[float, ...]:
    labels = seen.labels
    found = [neighbours.average_precision_at(vectors, labels, r, 10) for r in seen.rounds]
    return (
        accuracy(seen, lambda r: ridge(vectors, labels, r)),
        accuracy(seen, lambda r: neighbours.knn(vectors, labels, r)),
        accuracy(seen, lambda r: neighbours.few_shot(vectors, labels, r, 5, 0)),
        100 * float(np.nanmean(np.concatenate(found))),
    )


def print_row(name: str, found: Sequence[tuple[float, ...]]) -> None:
    means = " | ".join(f"{value:.1f}" for value in np.mean(found, axis=0))
    tasks = " | ".join(" / ".join(f"{value:.0f}" for value in values) for values in found)
    print(f"| {name} | {means} | {tasks} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--form", action="append", choices=FORMS, help="all if not given")
    arguments = parser.parse_args()
    corpus = Corpus(arguments.store)
    if arguments.network.suffix == ".onnx":
        model = warm_start.of_model_file(arguments.network)[0]
    else:
        model = checkpoint.encoder(checkpoint.load(arguments.network))
        readout.recalibrate(model, corpus)
    model = readout.with_layers(model, readout.axes_of(model, corpus))
    seen = []
    for task in open_tasks(arguments.tasks):
        console.print(f"embedding {task.name}")
        seen.append(without_last_fold(task, probe.embed(model, task.units())))
    store = readout.pooled(model, corpus).double()
    changes = readout.differences(model, corpus)
    statistics = model.readout.statistics
    print("| readout | linear | kNN | 5-shot | search |", *[f"{s.name} |" for s in seen])
    print("|---" * (5 + len(seen)) + "|")
    print_row("layers as they are", [row(s, s.pooled) for s in seen])
    for name in arguments.form or FORMS:
        made = project(store, changes, statistics, FORMS[name])
        matrix, center = made.matrix.numpy(), made.center.numpy()
        print_row(name, [row(s, unit((s.pooled - center) @ matrix)) for s in seen])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
