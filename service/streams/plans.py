"""What is computed of a long recording, as its parameters say: vectors, or predictions."""

from models.classifier import Classifier
from models.runtime import Encoder
from service.context import Context
from service.dimensions import check_dimensions
from service.inference.catalogue import Served
from service.inference.windowing import Windowing
from service.output_names import TABLES
from service.parameters import ClassificationParameters, EmbeddingParameters
from service.problems import invalid_parameter
from service.streams.streaming import Plan, describe_predictions, describe_vectors
from service.traffic.quotas import Caller


async def plan_vectors(shared: Context, asked: EmbeddingParameters) -> Plan:
    """The plan of embeddings.

    Raises:
        Problem: the parameters do not fit each other, or the model.
    """
    if asked.output in TABLES:
        reason = (
            f"output={asked.output} is one table and cannot be streamed: ask for json or base64."
        )
        raise invalid_parameter("output", reason, value=asked.output)
    model = shared.catalogue.model(asked.model)
    check_dimensions(asked.dimensions, model.network.card)
    windowing = Windowing.of(asked.window_s, asked.hop_s, model.network.card)
    describe = describe_vectors(asked)
    return Plan(model, "embedding", windowing, describe, selection=asked.selection)


async def plan_predictions(
    shared: Context, caller: Caller, asked: ClassificationParameters
) -> Plan:
    """The plan of predictions, by classifiers that this caller may use.

    Raises:
        Problem: the parameters do not fit each other, or the classifiers.
    """
    catalogue = await shared.catalogue_of(caller, asked.heads)
    model, classifiers = catalogue.choose(asked.model, asked.heads)
    windowing = windowing_of(asked, model, classifiers[0])
    describe = describe_predictions(classifiers, asked)
    return Plan(model, "classification", windowing, describe, selection=asked.selection)


def windowing_of(
    asked: ClassificationParameters, model: Served[Encoder], classifier: Served[Classifier]
) -> Windowing | None:
    """Windows as asked for, by default as long as the clips that the classifier learnt from.

    Raises:
        Problem: windows are asked for although recordings are classified as a whole.
    """
    if asked.granularity == "window":
        window_s = asked.window_s or classifier.network.card.training.unit_s
        return Windowing.of(window_s, asked.hop_s, model.network.card)
    for name, value in (("window_s", asked.window_s), ("hop_s", asked.hop_s)):
        if value is not None:
            reason = f"{name} needs granularity=window: a clip is classified as a whole."
            raise invalid_parameter(name, reason, value=value)
    return None
