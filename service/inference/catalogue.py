"""What is served: encoders and the classifiers of their spaces by name, and the default ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from models.classifier import Classifier
from models.modelfile import DEFAULT_CLASSIFIER, DEFAULT_MODEL
from models.runtime import Encoder
from service.discovery import modules
from service.exceptions import ServiceError
from service.inference import kinds
from service.inference.kind import Kind, Network
from service.inference.kinds.classifier import KIND as CLASSIFIER
from service.inference.kinds.encoder import KIND as ENCODER
from service.untrusted import printable

KINDS: list[Kind] = sorted(
    (module.KIND for module in modules(kinds)), key=lambda kind: kind is not ENCODER
)
"""All kinds, encoders first: the others take the vectors that encoders compute."""

N = TypeVar("N", bound=Network, covariant=True)


@dataclass(frozen=True)
class Served(Generic[N]):
    """A model file that computes what its card says.

    Attributes:
        kind: an encoder, a classifier, or what else there is.
        network: what computes.
        golden_error: largest difference from its golden values on this machine, relative to
            their peak.
        file: name of the file that it came from.
    """

    kind: Kind
    network: N
    golden_error: float
    file: str = ""

    @property
    def name(self) -> str:
        """What requests call it."""
        return str(self.network.card.name)

    @property
    def space_id(self) -> str:
        """The space of the vectors that it computes, or takes."""
        return str(self.network.card.space_id)


@dataclass(frozen=True)
class Refused:
    """A file that is not served, and why in words that may be published."""

    kind: Kind
    file: str
    reason: str


@dataclass
class Catalogue:
    """What is served, by kind and name, and what answers requests that name none.

    Attributes:
        served: all models, each of a space that one of the encoders has; of two with the same
            kind and name the last is served.
        refused: the files that are not served.
        default: the model of requests that name none; None takes the usual one, else the first.
        default_classifier: the classifier of such requests; likewise.
        by_kind: what is served of each kind, sorted by name.
        models: the encoders by name.
        classifiers: the classifiers by name.
    """

    served: Iterable[Served[Any]] = ()
    refused: list[Refused] = field(default_factory=list)
    default: str | None = None
    default_classifier: str | None = None

    def __post_init__(self) -> None:
        self.served = sorted(self.served, key=lambda item: item.name)
        self.by_kind: Mapping[Kind, Mapping[str, Served[Any]]] = {
            kind: {item.name: item for item in self.served if item.kind is kind} for kind in KINDS
        }
        self.models: Mapping[str, Served[Encoder]] = self.by_kind[ENCODER]
        self.classifiers: Mapping[str, Served[Classifier]] = self.by_kind[CLASSIFIER]
        usual = DEFAULT_MODEL.stem
        self.default = self.default or (
            usual if usual in self.models else next(iter(self.models), None)
        )

    def __iter__(self) -> Iterator[Served[Any]]:
        """Everything that is served, encoders first."""
        return (item for items in self.by_kind.values() for item in items.values())

    @property
    def spaces(self) -> set[str]:
        """The spaces of the encoders' vectors."""
        return {model.space_id for model in self.models.values()}

    @property
    def is_ready(self) -> bool:
        """Whether a request that names no model would be served."""
        return self.default in self.models

    def model(self, name: str | None) -> Served[Encoder]:
        """The model called `name`, or the default one.

        Raises:
            ServiceError: if it is not served.
        """
        wanted = name or self.default
        if wanted and wanted in self.models:
            return self.models[wanted]
        if name:
            known = ", ".join(self.models) or "none"
            message = f"There is no model {printable(name)!r}; there is: {known}."
            raise ServiceError("model-not-found", message, param="model")
        message = "No model is usable; `/readyz` and the log say why."
        raise ServiceError("model-unavailable", message)

    def classifier(self, name: str) -> Served[Classifier]:
        """The classifier called `name`.

        Raises:
            ServiceError: if it is not served.
        """
        if name not in self.classifiers:
            known = ", ".join(self.classifiers) or "none"
            message = f"There is no classifier {printable(name)!r}; there is: {known}."
            raise ServiceError("classifier-not-found", message, param="head")
        return self.classifiers[name]

    def models_of(self, classifier: Served[Classifier]) -> list[Served[Encoder]]:
        """The models that a classifier fits, the default one first."""
        return self._models_in(classifier.space_id)

    def classifiers_of(self, model: Served[Encoder]) -> list[Served[Classifier]]:
        """The classifiers that fit a model, the default one first."""
        fitting = [one for one in self.classifiers.values() if one.space_id == model.space_id]
        wanted = self.default_classifier or DEFAULT_CLASSIFIER.stem
        return sorted(fitting, key=lambda classifier: classifier.name != wanted)

    def model_for(self, model: str | None, classifier: str | None) -> Served[Encoder]:
        """The model of a request; one that names a classifier alone gets a model that fits.

        Raises:
            ServiceError: one of them is not served, or they do not fit.
        """
        if classifier is None:
            return self.model(model)
        chosen = self.classifier(classifier)
        if model is None:
            return self.models_of(chosen)[0]
        named = self.model(model)
        if named.space_id != chosen.space_id:
            fitting = ", ".join(fit.name for fit in self.models_of(chosen))
            raise ServiceError(
                "space-mismatch",
                f"The classifier {chosen.name} takes vectors of space {chosen.space_id}; the "
                f"model {named.name} computes space {named.space_id}. It fits: {fitting}.",
                param="head",
            )
        return named

    def choose(
        self, model: str | None, classifiers: Sequence[str]
    ) -> tuple[Served[Encoder], list[Served[Classifier]]]:
        """The model and the classifiers of a request, the usual one where none is named.

        Raises:
            ServiceError: one of them is not served, or they do not fit each other.
        """
        if not classifiers:
            usual, classifier = self.pair(model, None)
            return usual, [classifier]
        chosen = self.model_for(model, classifiers[0])
        for name in classifiers[1:]:
            self.model_for(chosen.name, name)
        return chosen, [self.classifier(name) for name in classifiers]

    def beside(self, classifiers: Mapping[str, Served[Classifier]]) -> "Catalogue":
        """This catalogue with more classifiers; one whose name is taken here is left out."""
        return replace(self, served=[*classifiers.values(), *self])

    def of_space(self, space_id: str) -> Served[Encoder]:
        """A model that computes vectors of this space, the default one if it does.

        Raises:
            ServiceError: none is served.
        """
        fitting = self._models_in(space_id)
        if not fitting:
            spaces = ", ".join(f"{one.space_id} ({one.name})" for one in self.models.values())
            raise ServiceError(
                "space-mismatch",
                f"No model here computes vectors of space {printable(space_id)!r}; there is: "
                f"{spaces or 'none'}.",
                param="space_id",
            )
        return fitting[0]

    def _models_in(self, space_id: str) -> list[Served[Encoder]]:
        """The models that compute vectors of this space, the default one first."""
        fitting = [model for model in self.models.values() if model.space_id == space_id]
        return sorted(fitting, key=lambda model: model.name != self.default)

    def pair(
        self, model: str | None, classifier: str | None
    ) -> tuple[Served[Encoder], Served[Classifier]]:
        """The model and the one classifier of a request.

        Raises:
            ServiceError: as `model_for`, and if no classifier fits the model.
        """
        chosen = self.model_for(model, classifier)
        if classifier is not None:
            return chosen, self.classifier(classifier)
        fitting = self.classifiers_of(chosen)
        if not fitting:
            raise ServiceError(
                "classifier-not-found",
                f"No classifier is served for the model {chosen.name}, space {chosen.space_id}.",
                param="head",
            )
        return chosen, fitting[0]
