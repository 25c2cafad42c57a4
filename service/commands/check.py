"""`viola serve --check`: everything that a start does, but for serving."""

from collections.abc import Iterator
from pathlib import Path

from service.inference.catalogue import Catalogue, Served, ServedHead
from service.inference.loading import load_catalogue
from service.settings import Settings
from service.traffic.auth import load_keys


def check(settings: Settings) -> tuple[bool, list[str]]:
    """Load and prove what these settings name: whether all of it works, and lines that tell.

    Raises:
        SettingsError: the API keys cannot be used.
    """
    keys = load_keys(settings)
    catalogue = load_catalogue(
        settings.models, settings.default_model, settings.default_head, settings.threads
    )
    lines = [
        *_models(catalogue),
        *(f"refused     {item.file}: {item.reason}" for item in catalogue.refused),
        f"keys        {', '.join(key.name for key in keys) or 'none: the service is open'}",
        f"address     http://{settings.host}:{settings.port}",
    ]
    works = catalogue.is_ready and not catalogue.refused
    if not catalogue.is_ready:
        lines.append(_remedy(catalogue, settings.models))
    return works, [*lines, "ready to serve" if works else "not ready to serve as it is set up"]


def _remedy(catalogue: Catalogue, models: Path) -> str:
    """Why no model answers requests that name none, and what to do."""
    if catalogue.served:
        return (
            f"the default model {catalogue.default} is not served; VIOLA_DEFAULT_MODEL may be one "
            f"of {', '.join(catalogue.served)}"
        )
    return (
        f"no encoder is served from {models}: name an encoder's file, or a folder that holds one "
        "beside its classifiers; without --models what ships is served"
    )


def _models(catalogue: Catalogue) -> Iterator[str]:
    for model in catalogue.served.values():
        mark = ", the default" if model.name == catalogue.default else ""
        yield f"model       {_described(model)}{mark}"
    for head in catalogue.heads.values():
        yield f"classifier  {_described(head)}"


def _described(item: Served | ServedHead) -> str:
    return f"{item.name}, space {item.space_id}, {item.golden_error:.1g} off its golden values"
