"""How well a classifier is taught by few clips, and how fast.

    python benchmarks/teaching.py TASK.csv TASK.csv --out results [--seeds 3] [--counts 5 10 20 50]

Accuracy on clips of a fold that is never learnt from, against the clips of a class that are
labelled: drawn at random, or those that `next` proposes. All ways begin with the same few clips of
each class, drawn at random; then so many are asked for at a time, and get the labels of the table.
Random draws do as a person does who labels what comes: classes are not evened out. Fold and draws
change with the seed. Then, of the first task, the seconds from a request to a classifier that
answers, through a service in this process. Prints both tables; `--out` gets them as Markdown and
JSON, with a plot. Four tasks of some thousand clips take about six minutes of a free core.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import structlog
from numpy.typing import NDArray
from rich.console import Console

from models.classifier import Classifier
from models.classifiers import calibration, estimators
from models.classifiers.fit import Embedded, embed
from models.classifiers.table import Order, Table
from models.classifiers.taught import teach
from models.labelled import tasks
from models.labelled.tasks import TaskError
from models.modelfile import DEFAULT_MODEL
from models.runtime import Encoder
from service.collections.choosing import Strategy, choose, margins

RANDOM = "random"
WAYS = (RANDOM, "margin", "diverse", "mixed")
STRENGTH = 0.01  # scikit-learn's C, of classifiers that only choose what comes next
STEP = 5  # clips a class that are asked for at a time
REPEATS = 3  # of a fit that is timed
console = Console(stderr=True)
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Clips that may be labelled, and those of the fold that tests."""

    embedded: Embedded
    train: Rows
    test: Rows

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of all clips (N,)."""
        return self.embedded.task.labels.astype(np.int64)


def pool_of(embedded: Embedded, seed: int) -> Pool:
    """The fold whose turn it is with this seed tests; all others may be labelled."""
    rounds = embedded.task.rounds
    round_ = rounds[seed % len(rounds)]
    return Pool(embedded, np.union1d(round_.train, round_.valid), round_.test)


def first_clips(pool: Pool, n: int, seed: int) -> Rows:
    """`n` clips of each class, at random."""
    shuffled = np.random.default_rng(seed).permutation(pool.train)
    of_class = pool.labels[shuffled]
    return np.concatenate([shuffled[of_class == k][:n] for k in np.unique(pool.labels)])


def next_clips(pool: Pool, labelled: Rows, n: int, way: str, seed: int) -> Rows:
    """`n` more clips, chosen in one of the ways."""
    left = np.setdiff1d(pool.train, labelled)
    if way == RANDOM:
        return np.random.default_rng(seed + len(labelled)).permutation(left)[:n]
    x, labels = pool.embedded.vectors, pool.labels
    fitted = estimators.fit(estimators.LOGISTIC, STRENGTH, x[labelled], labels[labelled], seed)
    sure = margins(
        calibration.softmax(fitted.logits(x[left])).astype(np.float32), multi_label=False
    )
    chosen = choose(cast(Strategy, way), n, sure, x[left], x[labelled], seed)
    return left[chosen]


def accuracy(pool: Pool, labelled: Rows, seed: int) -> float | None:
    """Accuracy of a classifier taught by these clips, on the fold that tests; None if refused."""
    task = pool.embedded.task
    groups = np.unique(task.digests if task.groups is None else task.groups, return_inverse=True)[1]
    holds = task.one_hot[labelled]
    table = Table(
        labels=task.classes,
        multi_label=False,
        vectors=pool.embedded.vectors[labelled],
        holds=holds,
        known=np.ones_like(holds),
        groups=groups[labelled].astype(np.int64),
        seconds=pool.embedded.seconds[labelled],
    )
    try:
        made = teach(table, Order("bench", task.name, "encoder", "space", seed=seed))
    except TaskError as error:
        console.print(f"{task.name}, {len(labelled)} clips: {error}", markup=False)
        return None
    answers = Classifier.of_bytes(made.file, "bench").predict(pool.embedded.vectors[pool.test])
    return float((answers.probabilities.argmax(axis=1) == pool.labels[pool.test]).mean())


def curve(
    pool: Pool, counts: list[int], way: str, seed: int, at_first: float | None
) -> dict[int, float | None]:
    """Accuracy against clips a class, labelled in one way; `at_first` is known already."""
    n_classes = len(pool.embedded.task.classes)
    labelled = first_clips(pool, counts[0], seed)
    found = {counts[0]: at_first}
    for count in counts[1:]:
        while len(labelled) < min(count * n_classes, len(pool.train)):
            n = min(STEP * n_classes, count * n_classes - len(labelled))
            more = next_clips(pool, labelled, n, way, seed)
            labelled = np.concatenate([labelled, more])
        if count * n_classes > len(pool.train):
            break  # the task has no more
        found[count] = accuracy(pool, labelled, seed)
    return found


def run_task(
    embedded: Embedded, counts: list[int], n_seeds: int
) -> dict[str, dict[int, list[float]]]:
    """Accuracies of each way at each count, one a seed."""
    results: dict[str, dict[int, list[float]]] = {way: {n: [] for n in counts} for way in WAYS}
    for seed in range(n_seeds):
        pool = pool_of(embedded, seed)
        at_first = accuracy(pool, first_clips(pool, counts[0], seed), seed)
        for way in WAYS:
            for count, value in curve(pool, counts, way, seed, at_first).items():
                if value is not None:
                    results[way][count].append(value)
        console.print(f"{embedded.task.name}: seed {seed} done", markup=False)
    return results


def table_rows(results: dict[str, dict[int, list[float]]], counts: list[int]) -> list[str]:
    """Markdown, a row a way."""
    rows = [
        "| clips a class | " + " | ".join(map(str, counts)) + " |",
        "|---|" + "---|" * len(counts),
    ]
    for way, found in results.items():
        cells = [
            f"{100 * np.mean(found[n]):.1f} ± {100 * np.std(found[n]):.1f}" if found[n] else "-"
            for n in counts
        ]
        rows.append(f"| {way} | " + " | ".join(cells) + " |")
    return rows


def plot(all_results: dict[str, dict[str, dict[int, list[float]]]], path: Path) -> None:
    """A panel a task."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(all_results), figsize=(4.5 * len(all_results), 3.6))
    for axis, (name, results) in zip(np.atleast_1d(axes), all_results.items(), strict=True):
        for way, found in results.items():
            counts = [n for n, values in found.items() if values]
            means = np.array([np.mean(found[n]) for n in counts])
            spread = np.array([np.std(found[n]) for n in counts])
            axis.plot(counts, means, marker="o", label=way)
            axis.fill_between(counts, means - spread, means + spread, alpha=0.15)
        axis.set(title=name, xlabel="clips a class", ylabel="accuracy", xscale="log")
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.set_xticks([], minor=True)
    np.atleast_1d(axes)[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def thinned(task: tasks.Task, n_clips: int | None) -> tasks.Task:
    """Some clips of each class, if not all are wanted; for a trial."""
    if n_clips is None or n_clips >= task.n_clips:
        return task
    labels = task.labels.astype(np.int64)
    per_class = max(1, n_clips // len(task.classes))
    mixed = np.random.default_rng(0).permutation(task.n_clips)
    of_class = [mixed[labels[mixed] == k][:per_class] for k in np.unique(labels)]
    kept = np.sort(np.concatenate(of_class))
    place = np.full(task.n_clips, -1)
    place[kept] = np.arange(len(kept))
    rounds = tuple(
        replace(
            one,
            train=place[np.intersect1d(one.train, kept)],
            valid=place[np.intersect1d(one.valid, kept)],
            test=place[np.intersect1d(one.test, kept)],
        )
        for one in task.rounds
    )
    return replace(
        task,
        labels=labels[kept],
        rounds=tuple(one for one in rounds if len(one.test) and len(one.train)),
        groups=None if task.groups is None else task.groups[kept],
        files=tuple(task.files[i] for i in kept),
        digests=tuple(task.digests[i] for i in kept),
    )


def request_seconds(
    embedded: Embedded, counts: list[int], model: Path
) -> dict[int, tuple[float, float]]:
    """Medians of the seconds from a request to an answer of the new classifier, and of learning."""
    from fastapi.testclient import TestClient

    from service.app import create_app
    from service.settings import Settings

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # no lines of a log
    found: dict[int, tuple[float, float]] = {}
    pool = pool_of(embedded, 0)
    for count in counts:
        rows = first_clips(pool, count, 0)
        with tempfile.TemporaryDirectory() as folder:
            space_id = fill(Path(folder), embedded, rows, model)
            settings = Settings(models=model, data=Path(folder), fit_timeout_s=600)
            with TestClient(create_app(settings)) as client:
                times = [ask(client, embedded.vectors[rows[0]], space_id) for _ in range(REPEATS)]
        total, learning = np.median(np.array(times), axis=0).tolist()
        found[count] = (total, learning)
    return found


def fill(folder: Path, embedded: Embedded, rows: Rows, model: Path) -> str:
    """A collection of these clips and their labels; the space of its vectors."""
    from service.collections.records import NewItem, NewLabel, Quota, Terms
    from service.collections.store import open_store

    card, task = Encoder.open(model).card, embedded.task
    store = open_store(folder)
    terms = Terms(card.name, card.space_id, card.embed_dim)
    collection, _ = store.collections.put("", "bench", terms, Quota())
    items, labels = [], []
    for row in rows.tolist():
        end_s = embedded.seconds[row : row + 1]
        vector = embedded.vectors[row : row + 1]
        items.append(
            NewItem(f"{row:064x}", np.zeros(1), end_s, vector, float(end_s[0]), f"clip-{row}")
        )
        labels.append(NewLabel(f"clip-{row}", task.classes[int(task.labels[row])]))
    store.items.add(collection, items, Quota())
    store.labels.add(collection, labels, "bench")
    store.close()
    return card.space_id


def ask(client: Any, vector: NDArray[np.float32], space_id: str) -> tuple[float, float]:
    """Teach once, and classify by what was taught."""
    started = perf_counter()
    made = client.post("/v1/classifiers", json={"name": "bench", "collection": "bench"})
    body = {"space_id": space_id, "embedding": vector.tolist(), "classifier": "bench"}
    answer = client.post("/v1/audio/classifications", json=body)
    seconds = perf_counter() - started
    for response in (made, answer):
        if response.status_code >= 300:
            raise SystemExit(response.text)
    return seconds, float(made.json()["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--root", type=Path, help="folder that file names start from")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--clips", type=int, help="use so many clips of each task, for a trial")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-service", action="store_true", help="time no requests")
    arguments = parser.parse_args()
    encoder, counts = Encoder.open(arguments.model), sorted(arguments.counts)
    all_results, lines, timed = {}, [], {}
    for path in arguments.tasks:
        task = tasks.load(path, root=arguments.root, seed=0)
        embedded = embed(thinned(task, arguments.clips), encoder, console)
        all_results[task.name] = run_task(embedded, counts, arguments.seeds)
        lines += [f"\n{task.name}, {len(task.classes)} classes, accuracy in %", ""]
        lines += table_rows(all_results[task.name], counts)
        if not (arguments.no_service or timed):
            timed[task.name] = request_seconds(embedded, counts, arguments.model)
    if timed:
        lines += ["\nSeconds from the request to a classifier that has answered (of them learning)"]
        lines += ["", "| task | " + " | ".join(f"{n} a class" for n in counts) + " |"]
        lines += ["|---|" + "---|" * len(counts)]
        for name, found in timed.items():
            cells = [
                f"{found[n][0]:.2f} ({found[n][1]:.2f})" if n in found else "-" for n in counts
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    print("\n".join(lines))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "teaching.md").write_text("\n".join(lines).strip() + "\n")
        content = {"accuracy": all_results, "seconds": timed}
        (arguments.out / "teaching.json").write_text(json.dumps(content, indent=1) + "\n")
        plot(all_results, arguments.out / "teaching.png")


if __name__ == "__main__":
    main()
