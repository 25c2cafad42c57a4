"""`GET /v1/classifiers`: what labels can be asked for, with each classifier's card."""

from fastapi import APIRouter

from service.context import Shared
from service.inference.catalogue import Catalogue, ServedHead
from service.openapi import problem_responses
from service.schemas import ClassifierEntry, ClassifierList
from service.traffic.access import needs_key

router = APIRouter(prefix="/v1/classifiers", tags=["classifiers"])


@router.get("", summary="List the classifiers")
@needs_key()
async def list_classifiers(shared: Shared) -> ClassifierList:
    """Every classifier that is served, with its card."""
    catalogue = shared.catalogue
    return ClassifierList(data=[_entry(head, catalogue) for head in catalogue.heads.values()])


@router.get(
    "/{classifier_id}",
    summary="Describe a classifier",
    responses=problem_responses(["classifier-not-found"]),
)
@needs_key()
async def describe_classifier(classifier_id: str, shared: Shared) -> ClassifierEntry:
    """One classifier and its card: labels, training data, held-out scores, calibration."""
    return _entry(shared.catalogue.head(classifier_id), shared.catalogue)


def _entry(head: ServedHead, catalogue: Catalogue) -> ClassifierEntry:
    models = catalogue.models_of(head)
    return ClassifierEntry(
        id=head.name,
        default=catalogue.heads_of(models[0])[0] is head,
        models=[model.name for model in models],
        space_id=head.space_id,
        card=head.classifier.card.model_dump(
            mode="json", exclude={"golden": {"logits", "probabilities"}}
        ),
    )
