"""Uploaded files -> items of a collection: those that are not there are embedded and added."""

from collections.abc import Sequence
from hashlib import sha256
from typing import cast

import structlog
from fastapi import Request, Response
from starlette.status import HTTP_201_CREATED

from service.audio.files import File, Upload
from service.clips import Embedded
from service.collecting import Collecting, windowing_of, windows_of
from service.collections.items import added_before, check_quota
from service.collections.records import Added, Collection, NewItem
from service.context import Context, model_of
from service.exceptions import Failure
from service.exchange import embed
from service.formats.answers import check_outcomes, in_place, json_response, usage
from service.formats.collection_answers import AddedItem, AddedItems, ItemAnswer
from service.formats.collection_requests import ItemAbout
from service.schemas import Usage
from service.telemetry.timing import Timing
from service.threads import in_thread
from service.uploads.body import Body

log = structlog.get_logger()


class Adding:
    """One request's files on their way into a collection."""

    def __init__(
        self,
        request: Request,
        shared: Context,
        collected: Collecting,
        collection: Collection,
        timing: Timing,
    ) -> None:
        self._request, self._shared, self._timing = request, shared, timing
        self._collected, self._collection = collected, collection
        self._store = collected.store

    async def answer(self, uploads: Sequence[Upload], about: Sequence[ItemAbout]) -> Response:
        """Add the files that are not there, and answer what became of every file.

        Raises:
            Problem: the model is not served, or no file could be used.
            StoreError: there would be too many items, or the disk is full; nothing is added.
        """
        model = model_of(self._shared, self._collection)
        with self._timing.stage("store"):
            digests = await in_thread(_digests, uploads)
            known = await in_thread(self._store.items.with_content, self._collection, digests)
        new = [index for index, digest in enumerate(digests) if digest not in known]
        check_quota(self._collection, self._collected.quota, len(new))
        kept = await self._kept([uploads[index] for index in new])
        windowing = windowing_of(self._collection.terms, model.network.card)
        embedded = await embed(
            self._request,
            self._shared,
            model.network,
            Body([uploads[index] for index in new]),
            windowing,
            self._timing,
        )
        results: list[Added | Failure] = [
            _settled(added_before(known[digest], one.id) if digest in known else Added(None))
            for digest, one in zip(digests, about, strict=True)
        ]
        made = []
        for index, outcome, audio in zip(new, embedded, kept, strict=True):
            if isinstance(outcome, Failure):
                results[index] = outcome
            else:
                item = _new_item(digests[index], uploads[index], about[index], outcome, audio)
                made.append((index, item))
        with self._timing.stage("store"):
            added = await in_thread(
                self._store.items.add,
                self._collection,
                [item for _, item in made],
                self._collected.quota,
            )
        for (index, _), one in zip(made, added, strict=True):
            results[index] = _settled(one)
        check_outcomes(uploads, results)
        return self._render(uploads, results, dict(zip(new, embedded, strict=True)))

    async def _kept(self, uploads: Sequence[Upload]) -> list[bytes | None]:
        """The files themselves, where they are to be kept."""
        if not self._collection.terms.keeps_audio:
            return [None] * len(uploads)
        await self._request.state.share.take(sum(upload.n_bytes for upload in uploads))
        return [bytes(upload.data) for upload in uploads]

    def _render(
        self,
        uploads: Sequence[Upload],
        results: Sequence[Added | Failure],
        embedded: dict[int, Embedded | Failure],
    ) -> Response:
        data = [
            _answer_of(index, upload, result, embedded.get(index))
            for index, (upload, result) in enumerate(zip(uploads, results, strict=True))
        ]
        n_new = sum(item.is_new for item in data)
        terms = self._collection.terms
        response = json_response(
            AddedItems(
                collection=self._collection.name,
                model=terms.model,
                space_id=terms.space_id,
                data=data,
                usage=Usage(
                    audio_seconds=usage(list(embedded.values())).audio_seconds,
                    windows=sum(one.item.windows for one in data if one.is_new and one.item),
                ),
            )
        )
        if n_new:
            response.status_code = HTTP_201_CREATED
            key = self._request.state.caller.key
            log.info("items added", collection=self._collection.name, key=key, items=n_new)
        return response


def _digests(uploads: Sequence[Upload]) -> list[str]:
    return [sha256(cast(File, upload.data)).hexdigest() for upload in uploads]


def _settled(added: Added) -> Added | Failure:
    """The outcome of one file: how it was added, or why it was refused."""
    return added if added.refusal is None else added.refusal


def _new_item(
    digest: str, upload: Upload, about: ItemAbout, embedded: Embedded, audio: bytes | None
) -> NewItem:
    start_s, end_s, vectors = windows_of(embedded)
    return NewItem(
        digest,
        start_s,
        end_s,
        vectors,
        embedded.duration_s,
        about.id,
        upload.name,
        about.metadata,
        audio,
    )


def _answer_of(
    index: int, upload: Upload, result: Added | Failure, embedded: Embedded | Failure | None
) -> AddedItem:
    if isinstance(result, Failure):
        return AddedItem(index=index, file=upload.name, is_new=False, error=in_place(result))
    warnings = list(embedded.warnings) if isinstance(embedded, Embedded) else []
    return AddedItem(
        index=index,
        file=upload.name,
        is_new=result.is_new,
        item=result.item and ItemAnswer.of(result.item),
        warnings=warnings or None,
    )
