"""Adds a recording of hours to a collection, and answers in lines that tell how far it is.

Nothing is added before all of it has been embedded, and then all of it is, in one transaction.
Letters: `N` windows, `D` embedding dim.
"""

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from models.runtime import Encoder, Floats
from service.collecting import Collecting, without_rest
from service.collections.items import added_before
from service.collections.records import Added, Collection, Doubles, NewItem, Terms
from service.context import Context, model_of
from service.formats.collection_answers import AddedItem, ItemAnswer
from service.formats.collection_requests import ItemAbout
from service.inference.catalogue import Served
from service.inference.windowing import Windowing
from service.problems import Problem
from service.streams.streaming import Members, Plan, check_finite
from service.threads import in_thread
from service.traffic.budget import Share
from service.uploads.spool import Spooled

KIND = "recording"  # the `object` of the answer for the whole recording, which is not sent


def plan_of(shared: Context, collection: Collection) -> Plan:
    """What is computed of a recording that is to be added."""
    return plan_with(model_of(shared, collection), collection.terms)


def plan_with(model: Served[Encoder], terms: Terms) -> Plan:
    """What this model computes of a recording for a collection of these terms."""
    windowing = Windowing.of(terms.window_s, terms.hop_s, model.network.card)
    return Plan(model, KIND, windowing, _vectors)


def _vectors(vectors: Floats) -> list[Members]:
    check_finite(vectors)
    return [{"vector": row} for row in vectors]


@dataclass
class Windows:
    """The windows of a recording computed so far; `whole` is the answer that ends it."""

    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    vectors: list[Floats] = field(default_factory=list)
    whole: Members = field(default_factory=dict)

    def hear(self, one: Members, share: Share) -> None:
        """Take in one answer.

        Raises:
            ServiceError: memory is full.
        """
        if one["object"] == "window":
            share.take_now(one["vector"].nbytes)
            self._add(one)
        elif one["object"] == KIND:
            self.whole = one

    def kept(self) -> tuple[Doubles, Doubles, Floats]:
        """Starts, ends and vectors of the windows that are kept of the whole recording."""
        if not self.vectors:
            end_s = self.whole["duration_s"]
            self._add({"start_s": 0.0, "end_s": end_s, "vector": self.whole["vector"]})
        start_s, end_s = np.array(self.start_s), np.array(self.end_s)
        n = without_rest(start_s, end_s)
        return start_s[:n], end_s[:n], np.stack(self.vectors[:n])

    def _add(self, members: Members) -> None:
        self.start_s.append(members["start_s"])
        self.end_s.append(members["end_s"])
        self.vectors.append(members["vector"])


class Keeping:
    """One recording on its way into a collection."""

    def __init__(
        self,
        share: Share,
        shared: Context,
        collected: Collecting,
        collection: Collection,
        about: ItemAbout,
        upload: Spooled,
    ) -> None:
        self._share, self._shared = share, shared
        self._collected, self._collection = collected, collection
        self._about, self._upload = about, upload

    async def lines(
        self, answers: AsyncIterator[list[Members]]
    ) -> AsyncGenerator[list[Members], None]:
        """Take the answers of a stream, and give lines about them; at last the item.

        Raises:
            ItemConflict: the content is there under another id.
            Problem: memory is full.
            StoreError: there would be too many items or bytes, or the disk is full.
        """
        digest = await in_thread(_digest, self._upload)
        items = self._collected.store.items
        known = await in_thread(items.with_content, self._collection, [digest])
        if digest in known:
            added = added_before(known[digest], self._about.id)
            if added.refusal is not None:
                raise added.refusal
            yield self._ending(added, 0.0)
            return
        audio = await in_thread(self._audio)
        windows = Windows()
        async for members in answers:
            for one in members:
                windows.hear(one, self._share)
            if windows.end_s and not windows.whole:
                yield [_progress(windows)]
        new = self._new_item(digest, windows, audio)
        quota = self._collected.quota
        (added,) = await in_thread(items.add, self._collection, [new], quota)
        if added.refusal is not None:
            raise added.refusal
        whole = windows.whole
        yield self._ending(added, whole["duration_s"], whole.get("warnings"))

    def _new_item(self, digest: str, windows: Windows, audio: bytes | None) -> NewItem:
        return NewItem(
            digest,
            *windows.kept(),
            windows.whole["duration_s"],
            self._about.id,
            self._upload.name,
            self._about.metadata,
            audio,
        )

    def _audio(self) -> bytes | None:
        """The file itself, where it is to be kept.

        Raises:
            Problem: it is larger than what is kept.
        """
        if not self._collection.terms.keeps_audio:
            return None
        file, most = self._upload.file.fileno(), self._shared.settings.max_body_bytes
        n_bytes = os.fstat(file).st_size
        if n_bytes > most:
            raise Problem(
                "body-too-large",
                f"The file has {n_bytes} bytes; where audio is kept at most {most} are accepted. "
                "Send it in parts, or compressed, or to a collection that keeps no audio.",
                limit=most,
                observed=n_bytes,
                unit="bytes",
            )
        self._share.take_now(n_bytes)
        return os.pread(file, n_bytes, 0)

    def _ending(
        self, added: Added, audio_s: float, warnings: list[str] | None = None
    ) -> list[Members]:
        answer = AddedItem(
            index=0,
            file=self._upload.name,
            is_new=added.is_new,
            item=added.item and ItemAnswer.of(added.item),
            warnings=warnings,
        )
        members = answer.model_dump(mode="json", exclude_none=True)
        n_windows = added.item.n_windows if added.item and added.is_new else 0
        usage = {"audio_seconds": audio_s, "windows": n_windows}
        return [{"object": "added", **members}, {"object": "done", "usage": usage}]


def _progress(windows: Windows) -> Members:
    return {"object": "progress", "windows": len(windows.vectors), "until_s": windows.end_s[-1]}


def _digest(upload: Spooled) -> str:
    """SHA-256 of the file, without moving the place where it is read."""
    content, first = hashlib.sha256(), 0
    while part := os.pread(upload.file.fileno(), 1 << 20, first):
        content.update(part)
        first += len(part)
    return content.hexdigest()
