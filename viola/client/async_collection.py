"""One collection of a service, for `viola.AsyncClient`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from viola.client import collection_calls as calls
from viola.client.answers import Vector
from viola.client.collection_calls import Example
from viola.client.errors import TOO_LONG, ServiceError
from viola.client.records import CollectionInfo, Duplicate, Hit, ItemInfo, Label, Moved, Placed
from viola.client.sounds import Sound, upload

if TYPE_CHECKING:
    from viola.client.asynchronous import AsyncClient


class AsyncCollection:
    """A collection by its name; every call means what it means on `Collection`."""

    def __init__(self, client: "AsyncClient", name: str) -> None:
        self._send, self.name = client.send, name

    async def make(self, **terms: Any) -> CollectionInfo:
        """Make the collection; if it is there with the same terms, nothing changes.

        Args:
            terms: model, granularity (`window`, `clip`), window_s, hop_s, keeps_audio.
        """
        return await self._send(calls.make(self.name, terms))

    async def show(self) -> CollectionInfo:
        """Its terms, and how much is in it."""
        return await self._send(calls.show(self.name))

    async def delete(self) -> None:
        """Delete it with all that is in it."""
        await self._send(calls.delete(self.name))

    async def reembed(self, model: str | None = None) -> Moved:
        """Move it, with its metadata and labels, to another model; it has to keep audio.

        Until the last item is done it stays as it was. If the answer breaks off, the same call goes
        on; if items fail, remove them and call again.
        """
        return await self._send(calls.reembed(self.name, model))

    async def give_up_reembedding(self) -> None:
        """Give up a move that was not completed; the vectors computed for it are deleted."""
        await self._send(calls.give_up(self.name))

    async def add(
        self,
        sound: Sound,
        *,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        sample_rate: int | None = None,
    ) -> ItemInfo:
        """Add a recording of any length; content that is there already is that item, at no cost.

        The file is sent from the disk. One that is too long for a request of its own is sent once
        more, as a stream.
        """
        call = calls.add(self.name, upload(sound, sample_rate), id, metadata)
        try:
            return await self._send(call)
        except ServiceError as error:
            if error.status != TOO_LONG:
                raise
        return await self._send(calls.in_lines(call))

    async def items(self, where: Mapping[str, Any] | None = None) -> AsyncIterator[ItemInfo]:
        """All items, or those for which a filter holds: ids, metadata, labels, without_labels."""
        cursor: int | None = 0
        while cursor is not None:
            page = await self._send(calls.items(self.name, cursor, where))
            for entry in page.entries:
                yield entry
            cursor = page.cursor

    async def remove(self, id: str) -> None:
        """Delete an item with its vectors, labels and audio."""
        await self._send(calls.remove(self.name, id))

    async def audio(self, id: str) -> bytes:
        """The file of an item, where the collection keeps audio."""
        return await self._send(calls.audio(self.name, id))

    async def samples(self, id: str, **selection: Any) -> Vector:
        """The samples (S,) of an item at 16 kHz, as every model hears them, where audio is kept.

        Args:
            id: of the item.
            selection: channel, start_s, end_s; without them all of it, mixed down.
        """
        return await self._send(calls.samples(self.name, id, selection))

    async def search(
        self,
        sound: Sound | None = None,
        *,
        like: Sequence[Example] = (),
        unlike: Sequence[Example] = (),
        sample_rate: int | None = None,
        **options: Any,
    ) -> list[Hit]:
        """What sounds like a file, or like items and vectors, best first.

        Args:
            sound: a path, a file's bytes, or samples with their `sample_rate`.
            like: items by their ids, hits, stretches of items (`{"id": ..., "start_s": 1, "end_s":
                2}`), or vectors.
            unlike: the same, of what it should not sound like.
            sample_rate: Hz, of samples.
            options: top_k, group, filter, exact, include_examples, min_percentile.
        """
        body = None if sound is None else upload(sound, sample_rate)
        return await self._send(calls.search(self.name, body, like, options | {"unlike": unlike}))

    async def label(
        self,
        item: str,
        label: str,
        *,
        verdict: str = "positive",
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Label:
        """Say that an item, or a stretch of it, is something (`negative`: is not, `unsure`)."""
        said = {"item": item, "label": label, "verdict": verdict}
        (made,) = await self.label_many([{**said, "start_s": start_s, "end_s": end_s}])
        return made

    async def label_many(self, labels: Sequence[Mapping[str, Any]]) -> list[Label]:
        """Several at once, all or none: item, label, verdict, start_s, end_s of each."""
        return await self._send(calls.label(self.name, labels))

    async def labels(
        self, *, item: str | None = None, label: str | None = None
    ) -> AsyncIterator[Label]:
        """All labels, those of an item, or those of a name."""
        cursor: int | None = 0
        while cursor is not None:
            asked = {"item": item, "label": label}
            page = await self._send(calls.labels(self.name, cursor, asked))
            for entry in page.entries:
                yield entry
            cursor = page.cursor

    async def unlabel(self, number: int) -> None:
        """Take a label back, by its `id`."""
        await self._send(calls.unlabel(self.name, number))

    async def map(self, **asked: Any) -> list[Placed]:
        """A place for each item; what sounds alike lies together: clusters, seed, filter."""
        return await self._send(calls.places(self.name, asked))

    async def duplicates(self, **asked: Any) -> list[Duplicate]:
        """Pairs that are closer than neighbours are by chance: confidence, limit, filter."""
        return await self._send(calls.duplicates(self.name, asked))
