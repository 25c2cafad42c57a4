"""SIGHUP: models, classifiers and keys are read again, and what is served goes on until they work.

A request keeps the model that it began with; the old sessions go when the last of them has ended.
"""

import ctypes
from dataclasses import replace

import structlog
from anyio.to_thread import run_sync

from service.context import Context
from service.inference.catalogue import Catalogue
from service.inference.fetching import models_path
from service.inference.loading import load_catalogue
from service.settings import Settings, SettingsError
from service.traffic.auth import Keyring, load_keys

log = structlog.get_logger()


async def reload(context: Context, keyring: Keyring) -> None:
    """Replace what is served, and the keys, by what the files hold now; broken ones change nothing.

    Never raises: whatever happens, the service goes on as it was.
    """
    log.info("reloading")
    works = [await _reload_keys(context.settings, keyring), await _reload_models(context)]
    await run_sync(_give_back)
    context.metrics.reloads.labels("done" if all(works) else "refused").inc()


def merged(old: Catalogue, new: Catalogue, default: str | None) -> Catalogue:
    """The new catalogue, with the old content of those files that are broken now.

    Where that could not answer a request that names no model, all of the old one stays.
    """
    broken = {refused.file for refused in new.refused}
    kept = [item for item in old if item.file in broken]
    catalogue = replace(new, served=[*kept, *new], default=default)
    fitting = [one for one in catalogue if one.space_id in catalogue.spaces]
    catalogue = replace(catalogue, served=fitting)
    if old.is_ready and not catalogue.is_ready:
        return replace(old, refused=new.refused)
    return catalogue


async def _reload_keys(settings: Settings, keyring: Keyring) -> bool:
    try:
        keyring.keys = tuple(await run_sync(load_keys, settings))
    except SettingsError as error:
        log.error("keys not reloaded; the old ones stay", reason=str(error))
        return False
    return True


async def _reload_models(context: Context) -> bool:
    settings, old = context.settings, context.catalogue
    try:
        new = await run_sync(
            load_catalogue,
            await run_sync(models_path, settings),
            settings.default_model,
            settings.default_head,
            settings.workers_and_threads[1],  # as at the start
        )
        context.catalogue = merged(old, new, settings.default_model)
    except Exception:
        log.exception("models not reloaded; the old ones stay")
        return False
    _tell(old, new, context.catalogue)
    if context.collecting is not None:
        await context.collecting.warn_of_other_spaces(context.catalogue.spaces)
    return not new.refused


def _tell(old: Catalogue, new: Catalogue, kept: Catalogue) -> None:
    """Log what is served now, and which models are the old ones because their files are broken."""
    fresh = {id(item) for item in new}
    for item in kept:
        if id(item) not in fresh:
            log.warning("old one stays", name=item.name, file=item.file)
    log.info("reloaded", models=list(kept.models), classifiers=list(kept.classifiers))


def _give_back() -> None:
    """Return what the old sessions held to the system; glibc would keep it, more each time."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
