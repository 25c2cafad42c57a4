"""Labelled clips -> a classifier file: cross-validated, calibrated, checked before it is kept.

Letters: `N` clips, `D` embedding dim, `K` classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from threadpoolctl import threadpool_limits

from models import classifier, modelfile
from models.audio import SAMPLE_RATE
from models.classifier import ClassifierCard, GoldenScores, Predictions
from models.classifiers import calibration, crossfit, estimators, graph, novelty, tested
from models.classifiers.calibration import Scaling
from models.classifiers.card import Notes, Space, describe
from models.classifiers.crossfit import HeldOut, Judged
from models.classifiers.estimators import Fitted, Floats, Kind
from models.classifiers.novelty import References
from models.classifiers.tested import Tested
from models.labelled.tasks import Task, TaskError
from models.progress import tracked
from models.runtime import Encoder

MIN_CLIPS = 5  # of each class; with fewer there is nothing to hold out
BATCH = 32
PARITY_TOLERANCE = 1e-4


class FitError(TaskError):
    """A task that no classifier can be made of, or a classifier that failed its check."""


@dataclass(frozen=True)
class Embedded:
    """A task's clips as vectors (N, D), of each clip at its own length, and those lengths (N,)."""

    vectors: Floats
    seconds: NDArray[np.float64]
    task: Task


@dataclass(frozen=True)
class Made:
    """A classifier that was written, and what it says of clips held out.

    `uncalibrated_error` and `calibrated_error` are what calibration was decided by.
    """

    card: ClassifierCard
    tested: Tested
    uncalibrated_error: float
    calibrated_error: float


@dataclass(frozen=True)
class Head:
    """All that a classifier computes with."""

    fitted: Fitted
    scaling: Scaling
    references: References
    multi_label: bool

    def expected(self, embeddings: Floats) -> Predictions:
        """What the graph must answer to (N, D)."""
        logits = self.scaling(self.fitted.logits(embeddings))
        probabilities = calibration.probabilities(logits, multi_label=self.multi_label)
        parts = (probabilities, logits, self.references.distance(embeddings))
        return Predictions(*(part.astype(np.float32) for part in parts))


@dataclass(frozen=True)
class Proved:
    """What cross-validation says; no `scaling`: it is left uncalibrated.

    `errors` of calibration are those before and after it, by which it was decided.
    """

    held: HeldOut
    judged: Judged
    scaling: Scaling | None
    errors: tuple[float, float]


def fit(
    task: Task,
    encoder: Encoder,
    out: Path,
    *,
    notes: Notes,
    kind: Kind = estimators.LOGISTIC,
    seed: int = 0,
    skip_broken: bool = False,
    console: Console | None = None,
) -> Made:
    """Train a classifier of `task` on the encoder's vectors and write it to `out`.

    Raises:
        FitError: the task cannot be learnt, or the file would compute something else.
        TaskError: a clip cannot be decoded, and `skip_broken` is not set.
    """
    console = console or Console(quiet=True)
    check_task(task)
    embedded = embed(task, encoder, console, skip_broken=skip_broken)
    check_task(embedded.task)  # what is left of it
    return fit_embedded(embedded, encoder, out, notes=notes, kind=kind, seed=seed, console=console)


def fit_embedded(
    embedded: Embedded,
    encoder: Encoder,
    out: Path,
    *,
    notes: Notes,
    kind: Kind = estimators.LOGISTIC,
    seed: int = 0,
    console: Console,
) -> Made:
    """`fit` for a task whose vectors are known."""
    proto, made = compose(
        embedded,
        Space.of(encoder.card),
        out.stem,
        notes=notes,
        kind=kind,
        seed=seed,
        console=console,
    )
    modelfile.write(proto, made.card, out)
    return made


def compose(
    embedded: Embedded,
    space: Space,
    name: str,
    *,
    notes: Notes,
    kind: Kind = estimators.LOGISTIC,
    seed: int = 0,
    console: Console,
) -> tuple[Any, Made]:
    """The graph of a classifier called `name`, and what goes with it; nothing is written.

    Raises:
        FitError: the graph computes something else than what was learnt.
    """
    task, x = embedded.task, embedded.vectors
    learnt = _learnt(task)
    with threadpool_limits(1):  # small problems: several threads would wait for each other
        proved = cross_validate(embedded, kind, seed, console)
        held = proved.held
        fitted = estimators.fit(kind, held.regularisation, x[learnt], task.labels[learnt], seed)
    head = Head(
        fitted=fitted,
        scaling=proved.scaling or calibration.unchanged(held.logits.shape[1]),
        references=novelty.choose(x[learnt], task.one_hot[learnt], seed),
        multi_label=task.is_multilabel,
    )
    proto, golden = checked_graph(head, x[learnt])
    card = describe(
        task,
        space,
        held,
        proved.judged,
        name=name,
        kind=kind,
        scaling=proved.scaling,
        n_references=len(head.references.vectors),
        learnt=learnt,
        unit_s=float(np.median(embedded.seconds[learnt])),
        seed=seed,
        notes=notes,
        golden=golden,
    )
    return proto, Made(card, _tested(name, task, held, proved.judged), *proved.errors)


def cross_validate(embedded: Embedded, kind: Kind, seed: int, console: Console) -> Proved:
    """Answers to clips held out, calibrated where that makes them more honest."""
    held = hold_out(embedded, kind, seed, console)
    labels = embedded.task.labels[held.index]
    calibrated = crossfit.judge(held, labels)
    keeps = calibration.helps(calibrated.raw, calibrated.probabilities, labels)
    errors = [
        calibration.calibration_error(found, labels)
        for found in (calibrated.raw, calibrated.probabilities)
    ]
    return Proved(
        held=held,
        judged=calibrated if keeps else crossfit.judge(held, labels, calibrated=False),
        scaling=calibration.fit(held.logits, labels) if keeps else None,
        errors=(errors[0], errors[1]),
    )


def checked_graph(head: Head, embeddings: Floats) -> tuple[Any, GoldenScores]:
    """The graph of a head, which computes the same; and its scores for the reference embedding.

    Raises:
        FitError: it computes something else.
    """
    proto = graph.build(head.fitted, head.scaling, head.references, multi_label=head.multi_label)
    _check_parity(proto.SerializeToString(), head, embeddings)
    offset, scale = float(embeddings.mean()), float(embeddings.std())
    reference = classifier.reference_embedding(embeddings.shape[1], offset, scale)
    return proto, classifier.golden_scores(offset, scale, head.expected(reference[None]))


def _tested(name: str, task: Task, held: HeldOut, judged: Judged) -> Tested:
    """What the classifiers of all rounds said of the clips held out."""
    return Tested(
        name=name,
        labels=task.classes,
        multi_label=task.is_multilabel,
        files=tested.names([item.name for item in task.files], held.index),
        unit=task.unit,
        truth=task.one_hot[held.index],
        probabilities=judged.probabilities,
        predicted=tested.one_hot(judged.predicted, len(task.classes)),
        is_known=judged.is_known,
    )


def check_task(task: Task) -> None:
    """Refuse what no classifier can be made of.

    Raises:
        FitError: what is missing, and what to do about it.
    """
    if len(task.classes) < 2 and not task.is_multilabel:
        raise FitError(
            f"{task.name} has one class, {task.classes[0]!r}: a classifier needs two at least. "
            "Add clips of something else"
        )
    counts = task.one_hot.sum(axis=0)
    for name, count in zip(task.classes, counts.tolist(), strict=True):
        if count == len(task.labels):
            raise FitError(
                f"{task.name}: every clip is of class {name!r}: there is nothing to tell it from. "
                "Add clips without it, or leave the class out"
            )
        if count < MIN_CLIPS:
            raise FitError(
                f"{task.name}: the class {name!r} has {count} clips, at least {MIN_CLIPS} are "
                "needed; add some, or leave the class out"
            )
    for round_ in task.rounds:
        holds = task.one_hot[round_.train]
        for name, column in zip(task.classes, holds.T, strict=True):
            if not column.any() or column.all():
                word = "no" if not column.any() else "every"
                raise FitError(
                    f"{task.name}: {word} clip to train with in round {round_.name} is of class "
                    f"{name!r}, whose clips share too few folds or groups; spread them, or leave "
                    "the class out"
                )


def embed(task: Task, encoder: Encoder, console: Console, *, skip_broken: bool = False) -> Embedded:
    """Vectors of all clips, each at its own length, as the service sees them.

    Raises:
        TaskError: a clip cannot be decoded, and `skip_broken` is not set.
    """
    vectors = np.zeros((task.n_clips, encoder.card.embed_dim), np.float32)
    seconds = np.zeros(task.n_clips)
    broken: dict[int, str] = {}
    held: dict[int, Floats] = {}
    decoded = task.decode(broken if skip_broken else None)
    for index, samples in tracked(decoded, "embedding", console, task.n_clips):
        held[index] = samples
        seconds[index] = len(samples) / SAMPLE_RATE
        if len(held) == BATCH:
            vectors[list(held)] = encoder.embed_batch(list(held.values()))
            held.clear()
    vectors[list(held)] = encoder.embed_batch(list(held.values()))
    for index, reason in broken.items():
        console.print(f"skipped {task.files[index].name}: {reason}", markup=False)
    left = task.without(list(broken)) if broken else task
    return Embedded(vectors, seconds, left)


def hold_out(embedded: Embedded, kind: Kind, seed: int, console: Console) -> HeldOut:
    """Answers to clips that were held out, in all of the task's rounds."""
    rounds = tracked(embedded.task.rounds, "cross-validation", console)
    return crossfit.hold_out(kind, embedded.vectors, embedded.task, rounds, seed)


def _learnt(task: Task) -> NDArray[np.int64]:
    """Clips of the classifier that is kept: all, save the test part of a single split."""
    several = len(task.rounds) > 1
    parts = [
        part
        for round_ in task.rounds
        for part in (round_.train, round_.valid, *([round_.test] if several else []))
    ]
    return np.unique(np.concatenate(parts))


def _check_parity(graph: bytes, head: Head, embeddings: Floats) -> None:
    """Compare the graph with scikit-learn on the training clips and on noise of their spread.

    Scikit-learn's probabilities must be those of the layers, and the graph's answers those of the
    layers after calibration.

    Raises:
        FitError: they differ by more than 1e-4, relative to the largest where that is above 1.
    """
    noise = np.random.default_rng(0).normal(size=(64, embeddings.shape[1]))
    spread = embeddings.mean(axis=0) + noise * embeddings.std(axis=0)
    inputs = np.concatenate([embeddings, spread.astype(np.float32)])
    logits = head.fitted.logits(inputs)
    raw = calibration.probabilities(logits, multi_label=head.multi_label)
    _compare("probabilities before calibration", raw, head.fitted.probabilities(inputs))
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = session.run(classifier.OUTPUTS, {"embedding": inputs})
    expected = head.expected(inputs)
    for name, values in zip(classifier.OUTPUTS, found, strict=True):
        _compare(name, values, getattr(expected, name))


def _compare(name: str, found: NDArray[Any], right: NDArray[Any]) -> None:
    difference = float(np.abs(found - right).max())
    allowed = PARITY_TOLERANCE * max(1.0, float(np.abs(right).max()))
    if not difference <= allowed:
        raise FitError(
            f"the graph's {name} are {difference:.2g} off scikit-learn's; at most {allowed:.2g} is "
            "allowed. Nothing was written"
        )
