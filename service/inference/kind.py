"""What a kind of model file is: how one is opened and proved, and what is told of it.

Loading, reloading, self-tests, readiness, metrics and `viola serve --check` go through what is
served by its kind, and have no code for one of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Network(Protocol):
    """What computes, opened from a file that says so in its card."""

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
        card_kind: what the card of such a file calls it.
        golden: what its golden values are called.
        open: opens a file for so many threads.
        warm_up: computes once, so that the memory for it is there.
        tolerance: what it may differ from its golden values.
        labels: of its metric.
        facts: what the log says of it when it is ready.
    """

    name: str
    card_kind: str
    golden: str
    open: Callable[[Path, int | None], Network]
    warm_up: Callable[[Any], object]
    tolerance: Callable[[Any], float]
    labels: Callable[[Any], Mapping[str, str]]
    facts: Callable[[Any], Mapping[str, Any]]
