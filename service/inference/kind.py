"""A kind of model file: how one is opened, proved and described.

Loading, reloading, self-tests, readiness, metrics and `viola serve --check` know a model by its
`Kind` alone, and have no code for a particular one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Network(Protocol):
    """A model, opened from a file of its kind."""

    @property
    def card(self) -> Any:
        """At least with `name` and `space_id`."""
        ...

    def self_test(self) -> float:
        """Largest difference from the card's golden values, relative to their peak."""
        ...


@dataclass(frozen=True)
class Kind:
    """What the service has to know of a kind of model file.

    Attributes:
        name: in logs, in metrics (`viola_model_info`), in self-tests, and with an s in readiness.
        card_kind: the kind that the card of such a file names.
        golden: what the golden values of such a model are called.
        open: opens a file, for so many threads.
        warm_up: computes once, so that the memory for it is there.
        tolerance: how far results may differ from the golden values.
        labels: the labels of a model's metric.
        facts: what the log says of a model that is ready.
    """

    name: str
    card_kind: str
    golden: str
    open: Callable[[Path, int | None], Network]
    warm_up: Callable[[Any], object]
    tolerance: Callable[[Any], float]
    labels: Callable[[Any], Mapping[str, str]]
    facts: Callable[[Any], Mapping[str, Any]]
