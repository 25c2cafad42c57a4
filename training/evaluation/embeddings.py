"""Vectors of a task's clips, by a model file or by what it is compared with; computed once.

Letters: `B` batch, `S` samples, `N` clips, `D` embedding dim.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.atomic import replacing
from models.card import Card
from models.labelled import clips
from models.labelled.tasks import Task, TaskError
from models.modelfile import DEFAULT_MODEL
from models.nn.encoder import ENCODERS, of_card
from models.nn.frontend import LogMel
from models.nn.model import WaveformEncoder
from models.nn.readout import LayeredReadout
from models.runtime import Encoder
from training.evaluation import probe

BATCH = 64  # clips that are embedded at a time
CACHE_VERSION = 1  # another one where the same clips would get other vectors
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        name: in tables and figures; no two in one run have the same.
        key: what determines its vectors.
        embed: clips of one length to vectors, (B, S) -> (B, D).
        about: for the results: file, card.
    """

    name: str
    key: str
    embed: Callable[[Floats], Floats]
    about: dict[str, str]


def subjects(
    models: Sequence[Path], *, untrained: bool = False, log_mel: bool = False, seed: int = 42
) -> list[Subject]:
    """Model files (the default encoder if none), each network without training, log-mels.

    Raises:
        ModelFileError: a model file is missing, broken or not an encoder.
    """
    opened = [(path, Encoder.open(path)) for path in models or [DEFAULT_MODEL]]
    names = Counter(encoder.card.name for _, encoder in opened)
    found = []
    for path, encoder in opened:
        name = encoder.card.name
        found.append(of_encoder(encoder, path, name if names[name] == 1 else str(path)))
    if untrained:
        networks = {_network(e.card): e.card for _, e in opened}
        found += [of_random_weights(card, seed) for card in networks.values()]
    return found + ([of_log_mels()] if log_mel else [])


def default_cache() -> Path:
    """Where embeddings are kept: `viola` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "viola"


def of_encoder(encoder: Encoder, path: Path, name: str) -> Subject:
    """A model file on ONNX Runtime, as it is served."""
    card = encoder.card

    def embed(units: Floats) -> Floats:
        return encoder.embed_batch(list(units))

    about = {"file": path.name, "space_id": card.space_id, "encoder": card.encoder}
    return Subject(name, card.space_id, embed, about)


def of_random_weights(card: Card, seed: int) -> Subject:
    """The network of a card with its first, random weights: what training has to beat."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = of_card(card)
    # The same layers as the card's, without axes and projection: those are learnt as well
    readout = LayeredReadout(network) if card.pooling == "layers" else None
    model = WaveformEncoder(network, card.mean, card.std, readout).eval()
    name = _network(card)
    return Subject(
        f"untrained {name}",
        f"untrained {name} {card.mean} {card.std} {seed}",
        lambda units: probe.embed(model, units),
        {"encoder": card.encoder, "seed": str(seed)},
    )


def _network(card: Card) -> str:
    """A card's network in words, all that its first weights depend on."""
    parts = [f"{card.encoder}, {card.feature_dim or card.embed_dim}-d"]
    parts += ["layers"] if card.pooling == "layers" else []
    default = ENCODERS[card.encoder].default_channels
    parts += [f"{card.n_channels} channels"] if card.n_channels != default else []
    parts += [f"{card.norm} norm".replace("none", "no")] if card.norm != "batch" else []
    parts += ["standardised weights"] if card.weight_standardization else []
    return ", ".join(parts)


def of_log_mels() -> Subject:
    """Mean, deviation and maximum of each mel band over time, 192 values: no network at all."""
    front_end = LogMel()

    @torch.no_grad()
    def embed(units: Floats) -> Floats:
        x = front_end(torch.from_numpy(units))  # (B, F, T)
        statistics: Floats = torch.cat([x.mean(2), x.std(2), x.amax(2)], dim=1).numpy()
        return statistics

    return Subject("log-mel statistics", "log-mel mean std max", embed, {})


def embeddings(
    task: Task,
    subject: Subject,
    cache: Path,
    broken: dict[int, str] | None = None,
    tick: Callable[[int], None] = lambda n: None,
) -> Floats:
    """The vector of every clip of the task, from the cache or computed and put there: (N, D).

    A vector depends on the file's content, the unit length and what computes it, and so does its
    place in the cache. Clips that cannot be decoded have a vector of not-a-numbers.

    Args:
        task: whose clips.
        subject: what computes the vectors.
        cache: a folder; made if missing.
        broken: takes the files that cannot be decoded; None: they are an error.
        tick: is told how many clips are done since the last time.

    Raises:
        TaskError: a file cannot be decoded, and `broken` is None; or a vector is not finite.
    """
    path = cache / f"{_key(task, subject)}.npy"
    vectors = _read(path, task.n_clips)
    if vectors is None:
        vectors = _compute(task, subject, broken, tick)
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, vectors)
    else:
        tick(task.n_clips)
    for index in np.flatnonzero(np.isnan(vectors).any(1)).tolist():
        if broken is None:
            task.reject(index, "it could not be when the cache was made")
        broken.setdefault(index, "it could not be decoded when the cache was made")
    return vectors


def _key(task: Task, subject: Subject) -> str:
    """A hash of all that matters; tasks with the same clips share their vectors."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {subject.key} {task.n_samples}\n".encode())
    for mark in task.digests:
        digest.update(mark.encode())
    return digest.hexdigest()[:32]


def _read(path: Path, n_clips: int) -> Floats | None:
    try:
        vectors = np.load(path)
    except (OSError, ValueError, EOFError):  # not there, or not whole
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == n_clips else None


def _compute(
    task: Task,
    subject: Subject,
    broken: dict[int, str] | None,
    tick: Callable[[int], None],
) -> Floats:
    vectors: Floats | None = None
    for indices, units in _batches(task, broken):
        part = subject.embed(units)
        if not np.isfinite(part).all():
            raise TaskError(f"{subject.name} gives vectors that are not finite numbers")
        if vectors is None:
            vectors = np.full((task.n_clips, part.shape[1]), np.nan, np.float32)
        vectors[indices] = part
        tick(len(indices))
    return np.full((task.n_clips, 1), np.nan, np.float32) if vectors is None else vectors


def _batches(task: Task, broken: dict[int, str] | None) -> Iterator[tuple[list[int], Floats]]:
    """Clips at the unit length, a batch at a time: indices (B,) and (B, S)."""
    indices: list[int] = []
    units: list[Floats] = []
    for index, samples in task.decode(broken):
        indices.append(index)
        units.append(clips.fit(samples, task.n_samples))
        if len(units) == BATCH:
            yield indices, np.stack(units)
            indices, units = [], []
    if units:
        yield indices, np.stack(units)
