"""Collections as the service has them: opened at its start where they are switched on."""

import asyncio
from collections.abc import Container
from contextlib import closing
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import structlog

from models.card import Card
from service.clips import Embedded
from service.collections.records import Collection, Doubles, Floats, Quota, StoreError, Terms
from service.collections.search import Searcher
from service.collections.store import DAY_S, Store, open_shared_store, open_store
from service.inference.windowing import Windowing
from service.naming import GROUP_MARK, group_in
from service.problems import Problem
from service.settings import Settings, SettingsError
from service.threads import in_thread
from service.traffic.admission import Admission
from service.traffic.quotas import Caller

LEAST_REST = 0.2  # of a step: what the last window has to add, or it is dropped
EXPIRY_S = 3600.0  # between two looks at what is too old
COMPARISONS = 1  # at a time: each keeps the cores busy for seconds
NOBODY = GROUP_MARK  # owns nothing: no group has an empty name

log = structlog.get_logger()


@dataclass(frozen=True)
class Collecting:
    """The store, who searches it, how much a key may keep, and places for what takes seconds."""

    store: Store
    searcher: Searcher
    quota: Quota
    kept_s: float | None = None
    comparisons: Admission = field(default_factory=lambda: Admission(COMPARISONS))

    @classmethod
    def open(cls, settings: Settings) -> Self | None:
        """What the settings name; None where they name nothing.

        Raises:
            SettingsError: it cannot be used, and why.
        """
        try:
            if settings.database_url is not None:
                store = open_shared_store(settings.database_url.get_secret_value())
            elif settings.data is not None:
                store = open_store(settings.data, memory_bytes=settings.search_memory_bytes)
            else:
                return None
        except StoreError as error:
            name = "VIOLA_DATA" if settings.database_url is None else "VIOLA_DATABASE_URL"
            raise SettingsError(f"{name}: {error}") from error
        quota = Quota(
            settings.max_collections, settings.max_collection_items, settings.max_collection_bytes
        )
        kept_s = None if settings.max_kept_days is None else settings.max_kept_days * DAY_S
        return cls(store, Searcher(store), quota, kept_s)

    @classmethod
    def count(cls, settings: Settings) -> int | None:
        """How many collections there are in the store that the settings name; None: they name none.

        Raises:
            SettingsError: the store cannot be used, and why.
        """
        opened = cls.open(settings)
        if opened is None:
            return None
        with closing(opened.store):
            return len(opened.store.collections.all())

    async def warn_of_other_spaces(self, served: Container[str]) -> None:
        """Tell the log of collections of spaces that no model here computes: they answer 409."""
        try:
            found = await in_thread(self.store.collections.by_space)
        except StoreError as error:
            log.warning("it is not known of which models collections are", reason=str(error))
            return
        for (model, space), n in found.items():
            if space not in served:
                log.warning(
                    "collections of a model that is not served",
                    collections=n,
                    model=model,
                    space_id=space,
                    remedy="serve its file as well, or move them with reembed",
                )

    async def tend(self) -> None:
        """Delete what is too old, and what is left of deletions that were cut short, every hour."""
        while True:
            try:
                await self._tidy()
            except StoreError as error:
                log.warning("not everything could be deleted", reason=str(error))
            except Exception:  # whatever it was, it is tried again
                log.exception("not everything could be deleted")
            await asyncio.sleep(EXPIRY_S)

    async def _tidy(self) -> None:
        await in_thread(self.store.collections.finish_deletions)
        if self.kept_s is not None:
            await in_thread(self.store.expire, self.kept_s)

    async def find(self, caller: Caller, name: str) -> Collection:
        """The caller's collection of that name.

        Raises:
            CollectionNotFound: there is none, or it is somebody else's.
        """
        return await in_thread(self.store.collections.get, owner_of(caller, name), name)


def windowing_of(terms: Terms, card: Card) -> Windowing | None:
    """The windows that a collection's recordings are cut into."""
    return Windowing.of(terms.window_s, terms.hop_s, card)


def windows_of(embedded: Embedded) -> tuple[Doubles, Doubles, Floats]:
    """Starts, ends and vectors of the windows that are kept of a recording.

    The last window is dropped if it adds less than a fifth of the step from one window to the next:
    without overlap it is too short to sound like anything, and searches would find it for that;
    with overlap it is nearly the window before it.
    """
    windows = embedded.windows
    if windows is None:
        whole = embedded.embedding[None]
        return np.zeros(1), np.array([embedded.duration_s]), whole
    n = without_rest(windows.start_s, windows.end_s)
    return windows.start_s[:n], windows.end_s[:n], windows.embedding[:n]


def without_rest(start_s: Doubles, end_s: Doubles) -> int:
    """How many of a recording's windows (N,) are kept; see `windows_of`."""
    if len(end_s) < 2:
        return len(end_s)
    step_s = start_s[1] - start_s[0]
    return len(end_s) - int(end_s[-1] - end_s[-2] < LEAST_REST * step_s)


def signature_of(caller: Caller) -> str:
    """Who is said to have done something: the key; where there are no keys, nobody."""
    return caller.key or ""


def owner_of(caller: Caller, name: str) -> str:
    """The owner of a collection or a classifier of this name, as a caller sees it.

    `birds:sounds` belongs to the group birds, and `sounds` to the caller's key, or to everybody
    where there are no keys. What belongs to a group that the caller is not in is `NOBODY`'s.
    """
    owner = group_in(name)
    if owner is None:
        return signature_of(caller)
    return owner if owner in owners_of(caller) else NOBODY


def owners_of(caller: Caller) -> list[str]:
    """The caller itself, and the groups that it is in."""
    return [signature_of(caller), *sorted(group + GROUP_MARK for group in caller.groups)]


def check_member(caller: Caller, name: str) -> None:
    """Refuse a name by which something would belong to a group that the caller is not in.

    Raises:
        Problem: it would.
    """
    if owner_of(caller, name) == NOBODY:
        group = name.partition(GROUP_MARK)[0]
        who = (
            "Without keys there are no groups"
            if caller.key is None
            else (f"The key {caller.key} is not in the group {group!r}")
        )
        raise Problem("forbidden", f"{who}: choose a name without {group + GROUP_MARK!r}.")
