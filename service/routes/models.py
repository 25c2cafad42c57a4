"""`GET /v1/models`: what is served, with each model's card."""

from fastapi import APIRouter

from models.runtime import Encoder
from service.context import Shared
from service.inference.catalogue import Served
from service.openapi import problem_responses
from service.reports import ModelEntry, ModelList
from service.traffic.access import needs_key

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the models")
@needs_key()
async def list_models(shared: Shared) -> ModelList:
    """Every model that is served, with its card."""
    catalogue = shared.catalogue
    return ModelList(data=[_entry(model, catalogue.default) for model in catalogue.models.values()])


@router.get(
    "/{model_id}", summary="Describe a model", responses=problem_responses(["model-not-found"])
)
@needs_key()
async def describe_model(model_id: str, shared: Shared) -> ModelEntry:
    """One model and its card."""
    return _entry(shared.catalogue.model(model_id), shared.catalogue.default)


def _entry(model: Served[Encoder], default: str | None) -> ModelEntry:
    card = model.network.card
    return ModelEntry(
        id=card.name,
        default=card.name == default,
        space_id=card.space_id,
        card=card.model_dump(mode="json", exclude={"golden": {"embedding"}}),
    )
