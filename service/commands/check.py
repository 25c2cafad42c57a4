"""`viola serve --check`: everything that a start does, but for serving."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service import footprint
from service.app import create_app
from service.collecting import Collecting
from service.inference.catalogue import Catalogue, Served
from service.inference.fetching import models_path
from service.inference.loading import load_catalogue
from service.settings import Settings
from service.traffic.gate import Gate
from service.traffic.shared_accounts import SharedAccounts


def check(settings: Settings) -> tuple[bool, list[str]]:
    """Load and prove what these settings name: whether all of it works, and lines that tell.

    Raises:
        SettingsError: the API keys, the place of collections, or another setting cannot be used.
    """
    footprint.check(settings)
    gate: Gate = create_app(settings).state.gate
    keys = gate.keyring.keys
    models = models_path(settings)
    catalogue = load_catalogue(
        models, settings.default_model, settings.default_head, settings.threads
    )
    lines = [
        *_models(catalogue),
        *(f"refused     {item.file}: {item.reason}" for item in catalogue.refused),
        f"keys        {', '.join(key.name for key in keys) or 'none: the service is open'}",
        f"address     http://{settings.host}:{settings.port}",
    ]
    lines.insert(-1, f"collections {_collections(settings)}")
    if (shared := gate.quotas.shared) is not None:
        lines.insert(-1, f"redis       {asyncio.run(_redis(shared))}")
    works = catalogue.is_ready and not catalogue.refused
    if not catalogue.is_ready:
        lines.append(_remedy(catalogue, models))
    return works, [*lines, "ready to serve" if works else "not ready to serve as it is set up"]


async def _redis(shared: SharedAccounts) -> str:
    """Say whether Redis takes writes now; a start does not wait for that."""
    found = await shared.find()
    await shared.close()
    return "shares quotas and usage" if found else "is down now, and the log says why"


def _collections(settings: Settings) -> str:
    """Where they are, once they have been opened."""
    n_collections = Collecting.count(settings)
    if n_collections is None:
        return "none: VIOLA_DATA and VIOLA_DATABASE_URL are not set"
    where = settings.data if settings.database_url is None else "the database"
    return f"{n_collections} in {where}"


def _remedy(catalogue: Catalogue, models: Path) -> str:
    """Why no model answers requests that name none, and what to do."""
    if catalogue.models:
        return (
            f"the default model {catalogue.default} is not served; VIOLA_DEFAULT_MODEL may be one "
            f"of {', '.join(catalogue.models)}"
        )
    return (
        f"no encoder is served from {models}: name an encoder's file, or a folder that holds one "
        "beside its classifiers; without --models what ships is served"
    )


def _models(catalogue: Catalogue) -> Iterator[str]:
    for item in catalogue:
        mark = ", the default" if item is catalogue.models.get(catalogue.default or "") else ""
        yield f"{item.kind.name:12}{_described(item)}{mark}"


def _described(item: Served[Any]) -> str:
    return f"{item.name}, space {item.space_id}, {item.golden_error:.1g} off its golden values"
