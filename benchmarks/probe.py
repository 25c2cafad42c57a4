"""Linear-probe accuracy of model files beside an untrained encoder and beside log-mel statistics.

    python benchmarks/probe.py --tasks FOLDER [--model NAME.onnx ...] [--json OUT.json]

A task is FOLDER/NAME.csv with columns file_name,label,fold; its files lie below FOLDER, or in a tar
there that has the name of their folder. Standard scaler, multinomial logistic regression, its
strength chosen on one held-out training fold, accuracy on each fold in turn; clips are padded with
zeros or cut to the task's length.
"""

import argparse
import csv
import json
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._testing import ignore_warnings

from models import audio
from models.modelfile import DEFAULT_MODEL
from models.nn.encoder import ENCODERS
from models.nn.frontend import LogMel
from models.nn.model import WaveformEncoder
from models.runtime import Encoder

TASKS = {
    "esc10": 5.0,
    "fsdd": 0.95,
    "arabic_commands": 1.0,
    "arabic_speakers": 1.0,
}  # seconds a clip
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C
BATCH = 32
console = Console(stderr=True)
Features = Callable[[np.ndarray], np.ndarray]  # clips (B, S) -> (B, D)


def load(folder: Path, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips (N, S), labels (N,) and folds (N,) of a task."""
    with (folder / f"{task}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    n_samples = round(TASKS[task] * audio.SAMPLE_RATE)
    clips = np.zeros((len(rows), n_samples), np.float32)
    archive_name = Path(rows[0]["file_name"]).parts[0] + ".tar"
    with ExitStack() as stack:
        archive = None
        if (folder / archive_name).exists():
            archive = stack.enter_context(tarfile.open(folder / archive_name))
        for clip, row in zip(clips, rows, strict=True):
            member = archive.extractfile(row["file_name"]) if archive else None
            source = member.read() if member else folder / row["file_name"]
            kept = audio.decode(source)[:n_samples]
            clip[: len(kept)] = kept
    return clips, np.array([r["label"] for r in rows]), np.array([r["fold"] for r in rows])


@ignore_warnings(category=ConvergenceWarning)
def probe(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> list[float]:
    """Accuracy on each fold of a classifier that was fitted on the others."""

    def accuracy(train: np.ndarray, test: np.ndarray, strength: float) -> float:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))
        classifier.fit(features[train], labels[train])
        return float(classifier.score(features[test], labels[test]))

    scores = []
    names = sorted(set(folds))
    for index, fold in enumerate(track(names, "folds", console=console, transient=True)):
        held_out = names[(index + 1) % len(names)]
        rest = ~np.isin(folds, (fold, held_out))
        best = max(STRENGTHS, key=lambda c: accuracy(rest, folds == held_out, c))
        scores.append(accuracy(folds != fold, folds == fold, best))
    return scores


def batches(clips: np.ndarray, features: Features) -> np.ndarray:
    """Features of all clips, batch by batch."""
    parts = range(0, len(clips), BATCH)
    steps = track(parts, "features", console=console, transient=True)
    return np.concatenate([features(clips[first : first + BATCH]) for first in steps])


def log_mel_statistics() -> Features:
    """Mean, deviation and maximum of each mel band over time: 192 values."""
    log_mel = LogMel()

    def features(clips: np.ndarray) -> np.ndarray:
        x = log_mel(torch.from_numpy(clips))
        return torch.cat([x.mean(2), x.std(2), x.amax(2)], dim=1).numpy()

    return features


def untrained(encoder: Encoder) -> Features:
    """The encoder's network with its first weights."""
    torch.manual_seed(0)
    card = encoder.card
    network = ENCODERS[card.encoder](embed_dim=card.embed_dim)
    model = WaveformEncoder(network, card.mean, card.std).eval()

    @torch.inference_mode()
    def features(clips: np.ndarray) -> np.ndarray:
        length = torch.full((len(clips),), clips.shape[1])
        embedding: np.ndarray = model(torch.from_numpy(clips), length)[0].numpy()
        return embedding

    return features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--model", type=Path, nargs="*", default=[DEFAULT_MODEL])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    encoders = [Encoder.open(path) for path in arguments.model]
    rows: dict[str, Features] = {
        e.card.name: lambda c, e=e: e.embed_batch(list(c)) for e in encoders
    }
    rows["the same, untrained"] = untrained(encoders[0])
    rows["log-mel statistics"] = log_mel_statistics()
    results: dict[str, dict[str, list[float]]] = {name: {} for name in rows}
    for task in TASKS:
        clips, labels, folds = load(arguments.tasks, task)
        for name, features in rows.items():
            results[name][task] = probe(batches(clips, features), labels, folds)
            scores = 100 * np.array(results[name][task])
            console.print(f"{task} {name}: {scores.mean():.1f} +- {scores.std():.1f}")
    print("| encoder | " + " | ".join(TASKS) + " | mean |")
    print("|---|" + "---|" * (len(TASKS) + 1))
    for name, tasks in results.items():
        columns = [f"{100 * np.mean(s):.1f} ± {100 * np.std(s):.1f}" for s in tasks.values()]
        mean = 100 * np.mean([np.mean(scores) for scores in tasks.values()])
        print(f"| {name} | " + " | ".join(columns) + f" | {mean:.1f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
