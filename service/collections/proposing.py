"""Windows of a collection that nobody has labelled, and which of them to label next."""

from dataclasses import dataclass

import numpy as np

from models.classifier import Predictions
from service.collections.choosing import MAX_CENTRES, Strategy, candidates, choose, margins
from service.collections.records import Collection, Doubles, Floats, Vectors
from service.collections.store import Store
from service.collections.verdicts import verdicts_on

MAX_LABELLED = 200  # items whose labelled windows the others are compared with


@dataclass(frozen=True)
class Candidates:
    """Windows that nobody has labelled, and labelled ones that they are compared with."""

    silent: Vectors
    labelled: Floats

    @property
    def n_bytes(self) -> int:
        """Bytes of the vectors."""
        return int(self.silent.vectors.nbytes + self.labelled.nbytes)


@dataclass(frozen=True)
class Proposed:
    """The windows to label next, best first; what a classifier says of them, and how surely."""

    windows: Vectors
    said: Predictions
    margins: Doubles
    considered: int


def unlabelled(store: Store, collection: Collection, n_most: int, seed: int) -> Candidates:
    """Windows that nobody has labelled, all or about `n_most` of them."""
    labels = store.labels.page(collection)
    names = sorted({label.label for label in labels})
    sample = store.windows.sample(collection, n_most)
    silent = sample.where(candidates(verdicts_on(sample, labels, names).is_heard, seed))
    keys = np.unique([label.item for label in labels]).astype(np.int64)
    drawn = np.random.default_rng(seed).permutation(keys)[:MAX_LABELLED].tolist()
    known = store.windows.of(collection, drawn)
    heard = known.where(verdicts_on(known, labels, names).is_heard)
    return Candidates(silent, heard.vectors[: 4 * MAX_CENTRES])


def propose(
    found: Candidates,
    said: Predictions,
    n: int,
    strategy: Strategy,
    seed: int,
    *,
    multi_label: bool,
) -> Proposed:
    """Which of the candidates to label next, by what a classifier says of them."""
    margin = margins(said.probabilities, multi_label=multi_label)
    rows = choose(strategy, n, margin, found.silent.vectors, found.labelled, seed)
    chosen = Predictions(said.probabilities[rows], said.logits[rows], said.novelty[rows])
    return Proposed(found.silent.where(rows), chosen, margin[rows], len(margin))
