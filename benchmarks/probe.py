"""Our linear probe against scikit-learn's LogisticRegression, and from files to a report.

    python benchmarks/probe.py [--model NAME.onnx] TASK[@SECONDS]...

Both learn from the same standardised embeddings of the same training parts. LogisticRegression is
shown at each strength, and at the one that is best on the test parts, which flatters it. The second
table is `viola evaluate` on the first task in a process of its own, with an empty cache and again.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils._testing import ignore_warnings

from models.labelled.splits import Round
from models.labelled.tasks import Task
from models.modelfile import DEFAULT_MODEL
from training.evaluation.embeddings import default_cache, embeddings, subjects
from training.evaluation.linear_probe import linear
from training.evaluation.scores import measure
from training.evaluation.task_names import open_tasks

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C
console = Console(stderr=True)


@ignore_warnings(category=ConvergenceWarning)
def reference(task: Task, vectors: np.ndarray, round_: Round, strength: float) -> float:
    """Accuracy of logistic regression, all of a round's training part and nothing else seen."""
    scaler = StandardScaler().fit(vectors[round_.train])
    classifier = LogisticRegression(C=strength, max_iter=200)
    classifier.fit(scaler.transform(vectors[round_.train]), task.labels[round_.train])
    return classifier.score(scaler.transform(vectors[round_.test]), task.labels[round_.test])


def ours(task: Task, vectors: np.ndarray, round_: Round) -> float:
    scores = linear(vectors, task.one_hot, round_)
    return measure(task.one_hot[round_.test], scores, task.is_multilabel)


def compare(tasks: list[Task], model: Path) -> None:
    (subject,) = subjects([model])
    print(
        "| task | ours | best C | difference | " + " | ".join(f"C={c:g}" for c in STRENGTHS) + " |"
    )
    print("|---|---|---|---|" + "---|" * len(STRENGTHS))
    for task in tasks:
        vectors = embeddings(task, subject, default_cache())
        steps = track(task.rounds, task.name, console=console, transient=True)
        mine = np.mean([ours(task, vectors, round_) for round_ in steps])
        by_strength = {
            c: np.mean([reference(task, vectors, round_, c) for round_ in task.rounds])
            for c in track(STRENGTHS, task.name, console=console, transient=True)
        }
        best = max(by_strength.values())
        cells = " | ".join(f"{100 * score:.1f}" for score in by_strength.values())
        print(
            f"| {task.name} | {100 * mine:.1f} | {100 * best:.1f} | {100 * (mine - best):+.1f} "
            f"| {cells} |",
            flush=True,
        )


def time_report(name: str, model: Path) -> None:
    print("| from files to report | seconds |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "viola", "evaluate", str(model), name]
        command += ["--cache", f"{folder}/cache", "--force", "--out", f"{folder}/out"]
        for kind in ("cold", "cached"):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            print(f"| {kind} | {time.perf_counter() - start:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    compare(open_tasks(arguments.tasks), arguments.model)
    time_report(arguments.tasks[0], arguments.model)


if __name__ == "__main__":
    main()
