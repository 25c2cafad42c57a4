"""What is served: encoders and the classifiers of their spaces by name, and the default ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.classifier import Classifier
from models.modelfile import DEFAULT_MODEL
from models.runtime import Encoder
from service.problems import Problem
from service.untrusted import printable

USUAL_HEAD = "sounds-10"


@dataclass(frozen=True)
class Served:
    """A model that computes what its card says."""

    encoder: Encoder
    golden_error: float
    """Largest difference from the golden vector on this machine, relative to its peak."""

    file: str = ""
    """Name of the file that it came from."""

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.encoder.card.name

    @property
    def space_id(self) -> str:
        """The space of its vectors."""
        return self.encoder.card.space_id


@dataclass(frozen=True)
class ServedHead:
    """A classifier that computes what its card says."""

    classifier: Classifier
    golden_error: float
    file: str = ""

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.classifier.card.name

    @property
    def space_id(self) -> str:
        """The space of the vectors that it takes."""
        return self.classifier.card.space_id


@dataclass(frozen=True)
class Refused:
    """A file that is not served, and why in words that may be published."""

    file: str
    reason: str
    is_head: bool = False


@dataclass
class Catalogue:
    """Models and classifiers by name, and those that answer requests that name none.

    Attributes:
        served: the models, sorted by name.
        heads: the classifiers, sorted by name; each has a model of its space.
        refused: the files that are not served.
        default: the model of requests that name none; None takes the usual one, else the first.
        default_head: the classifier of such requests; likewise.
    """

    served: Mapping[str, Served]
    heads: Mapping[str, ServedHead] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    default: str | None = None
    default_head: str | None = None

    def __post_init__(self) -> None:
        self.served = dict(sorted(self.served.items()))
        self.heads = dict(sorted(self.heads.items()))
        usual = DEFAULT_MODEL.stem
        self.default = self.default or (
            usual if usual in self.served else next(iter(self.served), None)
        )

    @property
    def is_ready(self) -> bool:
        """Whether a request that names no model would be served."""
        return self.default in self.served

    def get(self, name: str | None) -> Served:
        """The model called `name`, or the default one.

        Raises:
            Problem: if it is not served.
        """
        wanted = name or self.default
        if wanted and wanted in self.served:
            return self.served[wanted]
        if name:
            known = ", ".join(self.served) or "none"
            detail = f"There is no model {printable(name)!r}; there is: {known}."
            raise Problem("model-not-found", detail, param="model")
        raise Problem("model-unavailable", "No model is usable; `/readyz` and the log say why.")

    def head(self, name: str) -> ServedHead:
        """The classifier called `name`.

        Raises:
            Problem: if it is not served.
        """
        if name not in self.heads:
            known = ", ".join(self.heads) or "none"
            detail = f"There is no classifier {printable(name)!r}; there is: {known}."
            raise Problem("classifier-not-found", detail, param="head")
        return self.heads[name]

    def models_of(self, head: ServedHead) -> list[Served]:
        """The models that a classifier fits, the default one first."""
        fitting = [model for model in self.served.values() if model.space_id == head.space_id]
        return sorted(fitting, key=lambda model: model.name != self.default)

    def heads_of(self, model: Served) -> list[ServedHead]:
        """The classifiers that fit a model, the default one first."""
        fitting = [head for head in self.heads.values() if head.space_id == model.space_id]
        wanted = self.default_head or USUAL_HEAD
        return sorted(fitting, key=lambda head: head.name != wanted)

    def model_for(self, model: str | None, head: str | None) -> Served:
        """The model of a request; one that names a classifier alone gets a model that fits.

        Raises:
            Problem: one of them is not served, or they do not fit.
        """
        if head is None:
            return self.get(model)
        chosen = self.head(head)
        if model is None:
            return self.models_of(chosen)[0]
        named = self.get(model)
        if named.space_id != chosen.space_id:
            fitting = ", ".join(fit.name for fit in self.models_of(chosen))
            raise Problem(
                "space-mismatch",
                f"The classifier {chosen.name} takes vectors of space {chosen.space_id}; the "
                f"model {named.name} computes space {named.space_id}. It fits: {fitting}.",
                param="head",
            )
        return named

    def pair(self, model: str | None, head: str | None) -> tuple[Served, ServedHead]:
        """The model and the one classifier of a request.

        Raises:
            Problem: as `model_for`, and if no classifier fits the model.
        """
        chosen = self.model_for(model, head)
        if head is not None:
            return chosen, self.head(head)
        fitting = self.heads_of(chosen)
        if not fitting:
            raise Problem(
                "classifier-not-found",
                f"No classifier is served for the model {chosen.name}, space {chosen.space_id}.",
                param="head",
            )
        return chosen, fitting[0]
