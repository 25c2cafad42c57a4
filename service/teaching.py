"""Teaching as the service has it: the store, processes that learn, classifiers that answer.

Which version answers is read from the store at every request, so that a new one answers at once,
here and on every other replica, and after a restart.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import structlog

from models.classifier import Classifier
from models.modelfile import ModelFileError
from service.collecting import owner_of
from service.collections.classifiers import Active, Classifiers
from service.collections.fitting import FitLimits, Fits
from service.collections.store import Store
from service.exceptions import ServiceError
from service.inference.catalogue import Catalogue, Served
from service.inference.kinds.classifier import KIND as CLASSIFIER
from service.naming import is_name
from service.settings import Settings
from service.threads import in_thread
from service.traffic.admission import Admission
from service.traffic.quotas import Caller

MOST_OPEN = 64  # sessions that are kept

log = structlog.get_logger()


class TaughtClassifiers:
    """Opens the classifiers that requests name, and keeps the latest open; for several threads."""

    def __init__(self, classifiers: Classifiers) -> None:
        self._classifiers = classifiers
        self._open: OrderedDict[Active, Served[Classifier]] = OrderedDict()
        self._lock = threading.Lock()

    def named(self, owner: str, names: Sequence[str]) -> dict[str, Served[Classifier]]:
        """Those of the owner's classifiers that have these names, ready to answer.

        Raises:
            ServiceError: one of them does not compute what it says.
        """
        found = self._classifiers.active(owner, names)
        ready = {name: self._ready(name, active) for name, active in found.items()}
        return {name: one for name, one in ready.items() if one is not None}

    def _ready(self, name: str, active: Active) -> Served[Classifier] | None:
        with self._lock:
            if active in self._open:
                self._open.move_to_end(active)
                return self._open[active]
        content = self._classifiers.file(name, active)
        if content is None:  # deleted between two looks
            return None
        ready = opened(name, content)
        with self._lock:
            self._open[active] = ready
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return ready


def opened(name: str, content: bytes) -> Served[Classifier]:
    """Open a classifier file that computes what its card says.

    Raises:
        ServiceError: it does not.
    """
    try:
        classifier = Classifier.of_bytes(content, name)
        golden_error = classifier.self_test()
    except ModelFileError as error:
        log.error("taught classifier refused", head=name, reason=str(error))
        message = f"The taught classifier {name!r} fails its own test; teach it again."
        raise ServiceError("model-unavailable", message) from error
    return Served(CLASSIFIER, classifier, golden_error)


@dataclass(frozen=True)
class Teaching:
    """What teaching needs.

    Attributes:
        fits: processes that learn.
        places: how many may learn at once.
        taught: classifiers that were taught, ready to answer.
    """

    fits: Fits
    places: Admission
    taught: TaughtClassifiers

    @classmethod
    def of(cls, store: Store, settings: Settings) -> Self:
        """With the limits of the settings."""
        limits = FitLimits(settings.fit_timeout_s, settings.fit_memory_bytes)
        return cls(Fits(limits), Admission(settings.max_fits), TaughtClassifiers(store.classifiers))

    async def beside(self, catalogue: Catalogue, caller: Caller, names: Sequence[str]) -> Catalogue:
        """The catalogue, and those of the caller's classifiers that have these names.

        A classifier that the operator serves is never replaced by a taught one of the same name.

        Raises:
            ServiceError: one of them was taught in a space that no model here computes any more.
        """
        unknown = [name for name in names if name not in catalogue.classifiers and is_name(name)]
        if not unknown:
            return catalogue
        found: dict[str, Served[Classifier]] = {}
        for owner in sorted({owner_of(caller, name) for name in unknown}):
            of_owner = [name for name in unknown if owner_of(caller, name) == owner]
            found |= await in_thread(self.taught.named, owner, of_owner)
        for taught in found.values():
            if taught.space_id not in catalogue.spaces:
                raise ServiceError(
                    "space-mismatch",
                    f"The classifier {taught.name!r} was taught in space {taught.space_id} of the "
                    f"model {taught.network.card.encoder}, which is not served here. Serve the "
                    "file of that model again, or move the collection by reembed and teach the "
                    "classifier again.",
                    param="head",
                )
        return catalogue.beside(found)
