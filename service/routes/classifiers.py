"""`GET /v1/classifiers`: what labels can be asked for, with each classifier's card."""

from contextlib import suppress

from fastapi import APIRouter, Request

from models.classifier import Classifier
from service.collecting import owner_of, owners_of
from service.collections.classifiers import ClassifierNotFound
from service.context import Context, Shared
from service.formats.teaching_answers import ClassifierList, TaughtEntry
from service.inference.catalogue import Catalogue, Served
from service.openapi import problem_responses
from service.reports import ClassifierEntry
from service.threads import in_thread
from service.traffic.access import needs_key
from service.traffic.quotas import Caller

router = APIRouter(prefix="/v1/classifiers", tags=["classifiers"])


@router.get(
    "",
    summary="List the classifiers",
    responses=problem_responses(["overloaded", "storage-unavailable"]),
)
@needs_key()
async def list_classifiers(request: Request, shared: Shared) -> ClassifierList:
    """Every classifier that is served, then those of this key and its groups, with their cards."""
    catalogue = shared.catalogue
    served = [_entry(one, catalogue) for one in catalogue.classifiers.values()]
    return ClassifierList(data=[*served, *await _taught(shared, request.state.caller)])


@router.get(
    "/{name}",
    summary="Describe a classifier",
    responses=problem_responses(["classifier-not-found", "overloaded", "storage-unavailable"]),
)
@needs_key()
async def describe_classifier(
    request: Request, name: str, shared: Shared
) -> TaughtEntry | ClassifierEntry:
    """One classifier and its card: labels, training data, held-out scores, calibration.

    Of one that was taught also its versions.
    """
    catalogue = shared.catalogue
    if name not in catalogue.classifiers and shared.collecting is not None:
        owner = owner_of(request.state.caller, name)
        classifiers = shared.collecting.store.classifiers
        with suppress(ClassifierNotFound):
            kept = await in_thread(classifiers.get, owner, name)
            return TaughtEntry.told(kept, catalogue.models.values())
    return _entry(catalogue.classifier(name), catalogue)


async def _taught(shared: Context, caller: Caller) -> list[TaughtEntry]:
    """The caller's own, except for those whose name the operator has given since."""
    if shared.collecting is None:
        return []
    catalogue = shared.catalogue
    classifiers = shared.collecting.store.classifiers
    kept = [one for owner in owners_of(caller) for one in await in_thread(classifiers.all, owner)]
    return [
        TaughtEntry.told(one, catalogue.models.values())
        for one in kept
        if one.name not in catalogue.classifiers
    ]


def _entry(classifier: Served[Classifier], catalogue: Catalogue) -> ClassifierEntry:
    models = catalogue.models_of(classifier)
    return ClassifierEntry(
        id=classifier.name,
        default=catalogue.classifiers_of(models[0])[0] is classifier,
        models=[model.name for model in models],
        space_id=classifier.space_id,
        card=classifier.network.card.model_dump(
            mode="json", exclude={"golden": {"logits", "probabilities"}}
        ),
    )
