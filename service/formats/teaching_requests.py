"""What requests about taught classifiers may ask for."""

from typing import Annotated

from pydantic import Field

from service.collections.choosing import Strategy
from service.collections.teaching import Lesson, Task, Unlabelled
from service.naming import LabelName, Name
from service.parameters import PLAIN, JsonParameters, Parameters

MAX_NEXT = 100
MAX_LABELS = 1000


class TeachRequest(JsonParameters):
    """A classifier that is to be made of a collection's labels."""

    name: Name = Field(
        description="What requests will call it, `GROUP:NAME` for a group. One of that name gets a "
        "new version."
    )
    collection: Name = Field(description="Whose labels it is made of.")
    labels: Annotated[list[LabelName], Field(min_length=1, max_length=MAX_LABELS)] | None = Field(
        default=None, description="Which labels; else all that there are."
    )
    task: Task = Field(
        default="multi-class",
        description="`multi-class`: exactly one label holds for a window. `multi-label`: each "
        "label holds or not by itself, and is learnt from the windows that say which.",
    )
    unlabelled: Unlabelled = Field(
        default="leave",
        description="`leave`: what nobody has said teaches nothing. `negative`: it counts as a "
        "no, and windows without any label are drawn as such.",
    )
    description: Annotated[str, Field(max_length=500)] = Field(
        default="", description="A sentence for its card."
    )
    licence: Annotated[str, Field(max_length=100)] = Field(
        default="unknown", description="Of the classifier, for its card."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), PLAIN] = Field(
        default=0, description="Of splits and samples: the same labels make the same file."
    )

    def lesson(self) -> Lesson:
        """What is to be learnt."""
        labels = None if self.labels is None else tuple(self.labels)
        return Lesson(self.task, labels, self.unlabelled, self.seed)


class NextQuery(Parameters):
    """Which windows to label next."""

    collection: Name = Field(description="Whose windows; of the classifier's space.")
    n: Annotated[int, Field(ge=1, le=MAX_NEXT), PLAIN] = Field(default=10, description="How many.")
    strategy: Strategy = Field(
        default="mixed",
        description="`margin`: where the two best labels are closest. `diverse`: unlike all that "
        "is labelled or chosen. `mixed`: diverse among the least certain.",
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), PLAIN] = Field(
        default=0, description="Of what is drawn from a large collection."
    )
