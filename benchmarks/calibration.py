"""How honest the probabilities of classifiers are, and whether they know what they do not know.

    python benchmarks/calibration.py TASK.csv TASK.csv [--heads H.onnx H.onnx] [--json OUT]

The heads were fitted to the tasks by `viola fit`, which measured accuracy and expected calibration
error on held-out clips, calibrated by others: their cards hold both. What is measured here is the
AUROC by which novelty tells held-out clips of one task from those of the other, and the share of
the others that is called novel when 95 % of a task's own pass; with clips as they are, and with
those of the other task cut to the median length of its own, so that length tells less. Beside
novelty by the nearest training clip: by Mahalanobis distance to the class means after scaler and
PCA (Lee et al., arXiv 1807.03888), and by one minus the largest probability.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from models.audio import SAMPLE_RATE
from models.classifier import Classifier, ClassifierCard
from models.classifiers import calibration, estimators, novelty
from models.classifiers.fit import Embedded, embed
from models.labelled import tasks
from models.modelfile import DEFAULT_MODEL, PRETRAINED
from models.runtime import Encoder

SEED = 0
BATCH = 32
HEADS = [PRETRAINED / "sounds-10.onnx", PRETRAINED / "spoken-digits.onnx"]
N_COMPONENTS = 32  # the best of 16, 32, 64, 128 and 256
console = Console(stderr=True)
Distance = Callable[[np.ndarray], np.ndarray]  # (N, D) -> (N,)


def nearest(x: np.ndarray, one_hot: np.ndarray) -> Distance:
    """The novelty that classifier files compute: the distance to the nearest training clip."""
    return novelty.choose(x, one_hot, SEED).distance


def mahalanobis(x: np.ndarray, one_hot: np.ndarray) -> Distance:
    """Squared distance to the nearest class mean by the shared covariance."""
    scaler = StandardScaler().fit(x)
    pca = PCA(N_COMPONENTS, svd_solver="randomized", random_state=SEED).fit(scaler.transform(x))
    z = pca.transform(scaler.transform(x))
    means = (one_hot.T @ z) / one_hot.sum(axis=0)[:, None]
    rest = z - means[one_hot.argmax(axis=1)]
    root = np.linalg.cholesky(np.linalg.inv(rest.T @ rest / len(rest)))

    def distance(other: np.ndarray) -> np.ndarray:
        z = pca.transform(scaler.transform(other))
        return np.min([(((z - mean) @ root) ** 2).sum(axis=1) for mean in means], axis=0)

    return distance


def unsureness(x: np.ndarray, one_hot: np.ndarray) -> Distance:
    """One minus the largest probability of a logistic regression."""
    fitted = estimators.fit(estimators.LOGISTIC, 0.01, x, one_hot.argmax(axis=1), SEED)
    return lambda other: 1 - calibration.softmax(fitted.logits(other)).max(axis=1)


METHODS = {
    "nearest of 256 training clips": nearest,
    "Mahalanobis, PCA of 32": mahalanobis,
    "1 - largest probability": unsureness,
}


def tell_apart(own: Embedded, others: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """AUROC and share called novel of each method, in each round of `own`."""
    one_hot = own.task.one_hot
    results: dict[str, dict[str, list[float]]] = {
        name: {"auroc": [], "novel": []} for name in METHODS
    }
    for round_ in own.task.rounds:
        learnt = np.union1d(round_.train, round_.valid)
        for name, method in METHODS.items():
            distance = method(own.vectors[learnt], one_hot[learnt])
            known, strange = distance(own.vectors[round_.test]), distance(others)
            truth = np.repeat([0, 1], [len(known), len(strange)])
            auroc = roc_auc_score(truth, np.concatenate([known, strange]))
            results[name]["auroc"].append(float(auroc))
            results[name]["novel"].append(float((strange > novelty.threshold(known)).mean()))
    return results


def cut(task: tasks.Task, encoder: Encoder, seconds: float) -> np.ndarray:
    """Vectors of the beginnings of a task's clips."""
    n_samples = round(seconds * SAMPLE_RATE)
    clips = [samples[:n_samples] for _, samples in task.decode()]
    parts = [clips[first : first + BATCH] for first in range(0, len(clips), BATCH)]
    return np.concatenate([encoder.embed_batch(part) for part in parts])


def print_cards(cards: list[ClassifierCard]) -> None:
    """Print what `viola fit` measured, from the cards."""
    print("| classifier | accuracy | calibration error before | after | own clips that pass |")
    print("|---|---|---|---|---|")
    for card in cards:
        scores, error = card.scores, card.calibration
        accuracy = f"{100 * scores.mean:.1f} ± {100 * scores.deviation:.1f}"
        passing = f"{100 * card.novelty.passing:.1f} %"
        print(
            f"| {card.name} | {accuracy} | {error.ece_before:.3f} | {error.ece_after:.3f} | "
            f"{passing} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path, nargs=2)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--heads", type=Path, nargs=2, default=HEADS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print_cards([Classifier.open(path).card for path in arguments.heads])
    encoder = Encoder.open(arguments.model)
    own = [embed(tasks.load(path, seed=SEED), encoder, console) for path in arguments.tasks]
    apart = {}
    for one, other in (own, own[::-1]):
        name, strange, unit_s = one.task.name, other.task.name, float(np.median(one.seconds))
        apart[f"{name} or {strange}"] = tell_apart(one, other.vectors)
        if np.median(other.seconds) > unit_s:
            shorter = cut(other.task, encoder, unit_s)
            apart[f"{name} or {strange} of {unit_s:.2f} s"] = tell_apart(one, shorter)
    print("\n| told by | " + " | ".join(f"{pair}: AUROC | called novel" for pair in apart) + " |")
    print("|---|" + "---|---|" * len(apart))
    for method in METHODS:
        columns = []
        for found in apart.values():
            auroc, novel = found[method]["auroc"], found[method]["novel"]
            columns += [
                f"{np.mean(auroc):.4f} ± {np.std(auroc):.4f}",
                f"{100 * np.mean(novel):.1f} %",
            ]
        print(f"| {method} | " + " | ".join(columns) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(apart, indent=1) + "\n")


if __name__ == "__main__":
    main()
