"""The work that a run over many files does with each of them."""

from dataclasses import dataclass

from models.selection import WHOLE, Selection


@dataclass(frozen=True)
class Job:
    """What to do with every file; it is sent to all workers.

    Attributes:
        model: a model file, at the same path on every machine, or the name of one that ships.
        threads: of one worker.
        window_s, hop_s: seconds; None: one window, the whole file.
        dimensions: how many values of each vector.
        selection: the part of each file that is meant.
        head: a classifier, likewise; then labels come in the place of vectors.
        top_k: labels of each window, best first.
        digests: whether a row tells the SHA-256 of its file, by which a collection knows it.
    """

    model: str
    threads: int = 1
    window_s: float | None = None
    hop_s: float | None = None
    dimensions: int | None = None
    selection: Selection = WHOLE
    head: str | None = None
    top_k: int = 3
    digests: bool = False
