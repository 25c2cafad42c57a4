"""What a cosine means: pairs of clips of one label beside pairs of two, in figures and a picture.

python benchmarks/cosine.py [--model NAME.onnx] [--plot FILE.png] TASK.csv[@SECONDS]...
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from models.labelled.tasks import Task
from models.modelfile import DEFAULT_MODEL
from models.runtime import Encoder
from models.windows import unit
from training.evaluation.task_names import open_tasks

SHARES = (5, 50, 95, 99)


def cosines(task: Task, encoder: Encoder) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines of all pairs of clips with one label, and of all pairs with two."""
    vectors = unit(encoder.embed_batch(list(task.units())))
    first, second = np.triu_indices(len(vectors), 1)
    values = (vectors @ vectors.T)[first, second]
    same = task.labels[first] == task.labels[second]
    return values[same], values[~same]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    encoder, tasks = Encoder.open(arguments.model), open_tasks(arguments.tasks)
    figure, axes = plt.subplots(1, len(tasks), figsize=(4 * len(tasks), 3), squeeze=False)
    columns = " | ".join(f"{share} %" for share in SHARES)
    print(f"| task | pairs | {columns} |\n|---|---|" + "---|" * len(SHARES))
    for axis, task in zip(axes[0], tasks, strict=True):
        for name, values in zip(("one label", "two labels"), cosines(task, encoder), strict=True):
            cells = " | ".join(f"{value:.2f}" for value in np.percentile(values, SHARES))
            print(f"| {task.name} | {name} | {cells} |", flush=True)
            axis.hist(values, np.linspace(-0.5, 1, 76), density=True, alpha=0.6, label=name)
        axis.set(title=task.name, xlabel="cosine", yticks=[])
    axes[0][0].legend()
    figure.tight_layout()
    if arguments.plot:
        figure.savefig(arguments.plot, dpi=100)


if __name__ == "__main__":
    main()
