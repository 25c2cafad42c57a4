"""How good a frozen encoder is while it trains: its accuracy on labelled clips.

Letters: `N` clips, `S` samples, `D` embedding dim.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE
from models.labelled.tasks import Task, TaskError
from models.nn.model import WaveformEncoder
from training.evaluation.linear_probe import linear
from training.evaluation.neighbours import knn
from training.evaluation.scores import measure

BATCH_S = 60.0  # seconds of audio in one batch


class Probe:
    """Tasks whose clips are decoded once and kept, to be embedded again and again.

    Args:
        tasks: what to measure; their clips must fit into memory.
        kind: nearest neighbours, in about a second, or the linear probe, in several.

    Raises:
        TaskError: a clip cannot be decoded, or two tasks have one name.
    """

    def __init__(self, tasks: Sequence[Task], kind: Literal["knn", "linear"]) -> None:
        names = [task.name for task in tasks]
        if len(set(names)) < len(names):
            raise TaskError(f"two of the tasks {', '.join(names)} have one name; rename a file")
        self._tasks = list(tasks)
        self._units = [task.units() for task in tasks]
        self._kind = kind

    def __call__(self, model: WaveformEncoder) -> dict[str, float]:
        """Mean accuracy over the rounds of each task (mAP for several labels), in [0, 1].

        The model comes back as it was, and the random numbers of a run go on as without a probe.
        """
        scores = {}
        with _frozen(model):
            for task, units in zip(self._tasks, self._units, strict=True):
                scores[task.name] = self._score(task, embed(model, units))
        return scores

    def _score(self, task: Task, embeddings: NDArray[np.float32]) -> float:
        score = linear if self._kind == "linear" else knn
        labels = task.one_hot
        rounds = [
            measure(labels[round_.test], score(embeddings, labels, round_), task.is_multilabel)
            for round_ in task.rounds
        ]
        return float(np.mean(rounds))


@torch.no_grad()
def embed(model: WaveformEncoder, units: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of clips of one length, padding counted as sound: (N, S) -> (N, D)."""
    device = next(model.parameters()).device
    n_batch = max(1, round(BATCH_S * SAMPLE_RATE / units.shape[1]))
    vectors = []
    for first in range(0, len(units), n_batch):
        waveform = torch.from_numpy(units[first : first + n_batch]).to(device)
        length = torch.full((len(waveform),), units.shape[1], device=device)
        vectors.append(model(waveform, length)[0].float().cpu().numpy())
    return np.concatenate(vectors)


@contextmanager
def _frozen(model: WaveformEncoder) -> Iterator[None]:
    """Every layer as when it serves, then in the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
