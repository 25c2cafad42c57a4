"""Tests a classifier file on labelled clips: `viola evaluate CLASSIFIER TASK`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from models import shipped
from models.classifier import Classifier
from models.classifiers.fit import FitError, embed
from models.classifiers.tested import Tested, one_hot
from models.labelled.labels import some
from models.labelled.tasks import Task
from models.modelfile import ModelFileError, WrongKindError
from models.runtime import Encoder

SAME = 1e-4  # novelty of a clip that the classifier was trained on, at the precision of its file


def answers_to(
    classifier: Classifier,
    encoder: Encoder,
    task: Task,
    console: Console,
    *,
    skip_broken: bool = False,
) -> Tested:
    """What the classifier answers to all clips of a task, each at its own length.

    Raises:
        FitError: the task has labels that the classifier does not know, or more of them for a
            clip, or fewer, than it gives.
        TaskError: a clip cannot be decoded, and `skip_broken` is not set.
    """
    card = classifier.card
    unknown = sorted(set(task.classes) - set(card.labels))
    if unknown:
        raise FitError(
            f"{task.name} has labels that {card.name} does not know: {', '.join(unknown)}; it "
            f"knows {', '.join(card.labels)}. Rename them, or leave those clips out"
        )
    counts = task.one_hot.sum(axis=1)
    if not card.multi_label and (counts != 1).any():
        clips = [task.files[index].name for index in np.flatnonzero(counts != 1).tolist()]
        raise FitError(
            f"{task.name}: {card.name} gives each clip one label, and here {some(clips)} have none "
            "or several: leave those out, or train a classifier of several labels on such a table"
        )
    embedded = embed(task, encoder, console, skip_broken=skip_broken)
    kept = np.flatnonzero(embedded.seconds > 0)
    found = classifier.predict(embedded.vectors[kept])
    column = {name: index for index, name in enumerate(card.labels)}
    truth = np.zeros((len(kept), len(card.labels)), np.bool_)
    truth[:, [column[name] for name in task.classes]] = task.one_hot[kept]
    probabilities = found.probabilities.astype(np.float64)
    if card.multi_label:
        predicted = probabilities >= np.array(card.thresholds)
    else:
        predicted = one_hot(probabilities.argmax(axis=1), len(card.labels))
    return Tested(
        name=card.name,
        labels=tuple(card.labels),
        multi_label=card.multi_label,
        files=tuple(task.files[index].name for index in kept.tolist()),
        truth=truth,
        probabilities=probabilities,
        predicted=predicted,
        is_known=np.array([not card.is_novel(float(far)) for far in found.novelty]),
        n_learnt=int((found.novelty < SAME).sum()),
    )


def encoder_of(classifier: Classifier, models: Sequence[Path]) -> Encoder:
    """The encoder of a classifier's space, among model files and those that ship.

    Raises:
        ModelFileError: there is none.
    """
    for path in (*models, *map(shipped.find, shipped.names())):
        try:
            encoder = Encoder.open(path)
        except WrongKindError:
            continue
        if encoder.card.space_id == classifier.card.space_id:
            return encoder
    card = classifier.card
    raise ModelFileError(
        f"{card.name} takes vectors of {card.encoder}, space {card.space_id}, which no encoder "
        "that was named or ships computes; name its model file too"
    )
