"""A collection of made recordings, and what somebody says of them."""

import numpy as np

from service.collections.records import Label, Vectors

DIM = 4
PER = 4  # windows of each recording, a second long


def windows(n_items: int = 12, n_labels: int = 3, *, spread: float = 0.2) -> Vectors:
    """Recordings that sound like their number modulo `n_labels`."""
    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(n_items), PER)
    vectors = 2 * np.eye(n_labels, DIM)[items % n_labels] + rng.normal(0, spread, (len(items), DIM))
    start_s = np.tile(np.arange(PER, dtype=float), n_items)
    numbers = np.arange(len(items)) + 1000
    return Vectors(numbers, items, start_s, start_s + 1, vectors.astype(np.float32))


def says(
    item: int,
    label: str,
    verdict: str = "positive",
    span: tuple[float, float] | None = None,
    *,
    by: str = "ann",
    at: float = 0.0,
) -> Label:
    start_s, end_s = span or (None, None)
    key = int(1000 * at) + item
    return Label(key, item, f"rec{item}", label, verdict, start_s, end_s, by, at)  # type: ignore[arg-type]


def all_labelled(n_items: int = 12, n_labels: int = 3) -> list[Label]:
    """Each recording as a whole, by what it sounds like."""
    return [says(item, "abc"[item % n_labels]) for item in range(n_items)]
