"""The pictures of an evaluation, each as the bytes of a PNG: classes, confusion, maps.

Letters: `N` clips, `D` embedding dim, `K` classes.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from training.evaluation.evaluate import Result
from training.evaluation.threads import one_thread
from training.pictures import words

COLOURS = ("#1f6f8b", "#e07a3f", "#6b7f3a", "#8d5a97", "#b0413e", "#4d4d4d", "#c9a227", "#3d8b7d")
MOST_CLASSES = 30  # that have names in a picture; of more, those with the lowest scores
MOST_POINTS = 1_000  # of a map
N_COMPONENTS = 50  # that t-SNE starts from
DPI = 120


def classes(results: Sequence[Result]) -> bytes:
    """The linear probe's score of each class, for the subjects of one task."""
    task = results[0].task
    by_class = np.array([result.measures["linear"].by_class for result in results])  # (R, K)
    order = np.argsort(np.nan_to_num(by_class[0], nan=2.0), kind="stable")[:MOST_CLASSES]
    legend = 0.22 * len(results)  # a line each, so that no name is cut
    figure = Figure(figsize=(5.0, 0.8 + legend + 0.24 * len(order)), layout="constrained")
    axes = figure.subplots()
    for index, result in enumerate(results):
        axes.plot(
            by_class[index, order],
            range(len(order)),
            "o",
            color=COLOURS[index % len(COLOURS)],
            markersize=6,
            alpha=0.85,
            label=words(result.subject.name),
        )
    axes.set_yticks(range(len(order)), [_short(task.classes[index]) for index in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("average precision" if task.is_multilabel else "recall")
    _plain(axes, axis="x")
    figure.legend(loc="outside upper left", ncols=1, frameon=False, fontsize=9)
    return _png(figure)


def confusion(result: Result) -> bytes:
    """What the linear probe took the clips of each class for."""
    names = result.task.classes
    shown = [_short(name) for name in names] if len(names) <= MOST_CLASSES else []
    side = max(3.2, 1.6 + 0.2 * len(shown))
    figure = Figure(figsize=(side + 0.8, side + 0.9), layout="constrained")
    axes = figure.subplots()
    counts = np.array(result.measures["linear"].confusion, np.float64)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    axes.set_xticks(range(len(shown)), shown, rotation=90)
    axes.set_yticks(range(len(shown)), shown)
    axes.tick_params(labelsize=8, length=0)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    figure.colorbar(image, shrink=0.7, label="share of the class")
    return _png(figure)


def map_of(result: Result, seed: int) -> bytes:
    """Embeddings in the plane: PCA, then t-SNE; near means similar, far little.

    Clips without a label are not shown; of several labels the first gives the colour.
    """
    task = result.task
    chosen = _sample(result, seed)
    labelled = task.one_hot[chosen].any(1)
    kinds = task.one_hot[chosen].argmax(1)[labelled]
    few = len(task.classes) <= 10
    figure = Figure(figsize=(3.8, 4.4 if few else 3.8), layout="constrained")
    axes = figure.subplots()
    x, y = project(result.embeddings[chosen], seed)[labelled].T
    shown = axes.scatter(
        x,
        y,
        c=kinds,
        cmap="tab10" if few else "gist_ncar",
        s=9,
        linewidths=0,
        vmin=0,
        vmax=9 if few else len(task.classes),
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", "datalim")
    _plain(axes, axis=None)
    if few:
        there = np.unique(kinds)  # matplotlib gives no others a handle
        handles, _ = shown.legend_elements(num=there.tolist())
        names = [_short(task.classes[kind]) for kind in there.tolist()]
        figure.legend(handles, names, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    return _png(figure)


def project(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Standardised vectors (N, D) in the plane, (N, 2)."""
    standard = (vectors - vectors.mean(0)) / np.where(vectors.std(0) > 0, vectors.std(0), 1)
    n_components = min(N_COMPONENTS, *standard.shape)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    with one_thread():
        reduced = PCA(n_components, random_state=seed).fit_transform(standard)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
        points: NDArray[np.float32] = tsne.fit_transform(reduced)
    return points


def _sample(result: Result, seed: int) -> NDArray[np.int64]:
    """Clips that are used in a round, at most `MOST_POINTS`."""
    used = np.unique(np.concatenate([np.r_[r.train, r.valid, r.test] for r in result.task.rounds]))
    generator = np.random.default_rng(seed)
    return np.sort(generator.permutation(used)[:MOST_POINTS])


def _short(name: str) -> str:
    return words(name, 22)


def _plain(axes, axis: str | None = "y") -> None:  # type: ignore[no-untyped-def]
    """Less ink."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if axis:
        axes.grid(axis=axis, color="#ddd", linewidth=0.7)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
