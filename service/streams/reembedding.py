"""Moves a collection to another model, and answers in lines that tell how far it is.

The new vectors of each item are stored as soon as they are computed, so that after an answer that
broke off the next request goes on. The collection changes in one step, when all items have theirs.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import structlog
from fastapi import Request

from models.limits import AudioError
from models.runtime import Encoder
from service.collecting import Collecting, signature_of
from service.collections.records import Collection, Item, ItemNotFound, StoreError, Terms
from service.collections.reembedding import Move, audio_not_kept
from service.context import Context
from service.exceptions import ServiceError
from service.formats.answers import in_place
from service.formats.collection_answers import CollectionAnswer
from service.inference.catalogue import Served
from service.inference.windowing import Windowing
from service.streams.keeping import Windows, plan_with
from service.streams.streaming import Members, answers
from service.threads import in_thread
from service.uploads.spool import nameless, write_whole

PAGE = 100  # items that are looked for at a time

log = structlog.get_logger()


def new_terms(collection: Collection, model: Served[Encoder]) -> Terms:
    """The terms of a collection after the move: the new model, and windows as long as before.

    Raises:
        ServiceError: the model has no such windows.
    """
    old, card = collection.terms, model.network.card
    windowing = Windowing.of(old.window_s, old.hop_s, card)
    hop_s = None if windowing is None else windowing.hop_s
    return Terms(model.name, model.space_id, card.embed_dim, old.window_s, hop_s, old.keeps_audio)


class Moving:
    """The work of one request on a collection's move."""

    def __init__(
        self,
        request: Request,
        shared: Context,
        collected: Collecting,
        collection: Collection,
        model: Served[Encoder],
    ) -> None:
        self._share, self._caller = request.state.share, request.state.caller
        self._shared, self._collected = shared, collected
        self._collection, self._model = collection, model
        self._terms = new_terms(collection, model)
        self._audio_s, self._failed = 0.0, set[int]()

    async def lines(self) -> AsyncGenerator[list[Members], None]:
        """The opening, a line for each item, and at last the collection as it is then.

        Raises:
            StoreError: it cannot be moved, or not any more, or the disk is full.
            ServiceError: memory is full.
        """
        store = self._collected.store.reembedding
        if self._terms == self._collection.terms:
            yield [self._opening(0), self._ending(self._collection)]
            return
        quota = self._collected.quota
        move = await in_thread(store.begin, self._collection, self._terms, quota)
        yield [self._opening(await in_thread(store.n_left, move))]
        moved = None
        while moved is None:
            async with aclosing(self._items(move)) as lines:
                async for line in lines:
                    yield [line]
            if self._failed:
                break
            moved = await in_thread(store.finish, move)  # None where some have been added meanwhile
        if moved is not None:
            key = signature_of(self._caller)
            space_id = moved.terms.space_id
            log.info("collection moved", collection=moved.name, key=key, space_id=space_id)
        yield [self._ending(moved)]

    async def _items(self, move: Move) -> AsyncGenerator[Members, None]:
        """Embed the items that are left, with a line for each that is not deleted meanwhile."""
        store, after = self._collected.store.reembedding, 0
        while some := await in_thread(store.left, move, after, PAGE):
            after = some[-1].key
            for item in some:
                try:
                    with self._share.lent():
                        windows = await self._embedded(item)
                        await in_thread(store.keep, move, item, *windows.kept())
                except ItemNotFound:
                    continue
                except StoreError as error:
                    if error.kind != "audio-not-kept":
                        raise
                    yield self._failure(item, error)
                except (AudioError, ServiceError) as error:
                    yield self._failure(item, error)
                else:
                    yield {"object": "progress", "item": item.id, "windows": len(windows.start_s)}

    async def _embedded(self, item: Item) -> Windows:
        """The new windows of an item.

        Raises:
            AudioError: its audio cannot be decoded any more.
            ServiceError: its audio was not kept, or takes too much memory or time.
            OSError: the disk is full.
        """
        shared, windows, warnings = self._shared, Windows(), list[str]()
        if not item.has_audio:
            raise audio_not_kept(self._collection, [item.id], 1)
        file, on_disk = nameless()
        with file:
            if not on_disk:
                await self._share.take(item.n_bytes)
            parts = self._collected.store.items.audio(self._collection, item)
            await in_thread(write_whole, file, parts)
            file.seek(0)
            plan = plan_with(self._model, self._terms)
            spend = partial(shared.spend, self._caller)
            async with (
                aclosing(shared.recordings.blocks(file, warn=warnings.append)) as blocks,
                aclosing(answers(shared.engine.batcher, plan, blocks, spend, warnings)) as given,
            ):
                async for members in given:
                    for one in members:
                        windows.hear(one, self._share)
        self._audio_s += windows.whole["duration_s"]
        return windows

    def _failure(self, item: Item, error: AudioError | ServiceError) -> Members:
        self._failed.add(item.key)
        document = in_place(error).model_dump(mode="json", exclude_none=True)
        return {"object": "failure", "item": item.id, "error": document}

    def _opening(self, n_left: int) -> Members:
        return {
            "object": "reembedding",
            "collection": self._collection.name,
            "model": self._model.name,
            "space_id": self._model.space_id,
            "items": self._collection.n_items,
            "left": n_left,
        }

    def _ending(self, moved: Collection | None) -> Members:
        answer = CollectionAnswer.of(moved or self._collection)
        return {
            "object": "done",
            "is_complete": moved is not None,
            "failed": len(self._failed),
            "collection": answer.model_dump(mode="json", exclude_none=True),
            "usage": {"audio_seconds": self._audio_s},
        }
