"""`viola.AsyncClient`: the service as coroutines."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from viola.client import calls, collection_calls
from viola.client.answers import Answer, Card, Window
from viola.client.async_collection import AsyncCollection
from viola.client.async_jobs import AsyncJobs
from viola.client.batch import Batch, Item, Progress
from viola.client.batch_tasks import run_batch
from viola.client.calls import Call
from viola.client.collection import saved
from viola.client.connection import DEFAULT_ADDRESS, Connection, opened, request_of
from viola.client.errors import Failure, refused
from viola.client.lines import Lines
from viola.client.live import Block, LiveRequest, listen_async
from viola.client.records import CollectionInfo, Proposal, Taught
from viola.client.retries import Retries, checked
from viola.client.sounds import Sound, Upload, several, upload

T = TypeVar("T")


class AsyncClient:
    """A service of Viola, on an event loop; every call means what it means on `viola.Client`.

    async with viola.AsyncClient() as client:
        answer = await client.embed("speech.opus")
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        key: str | None = None,
        retries: Retries = Retries(),
        timeout_s: float = 120.0,
    ) -> None:
        self.connection = Connection(address, key, timeout_s)
        self.retries = checked(retries)
        self.refusals = 0
        self._is_found = False  # whether an answer has ever come from there
        self._http = httpx.AsyncClient(**self.connection.options())

    async def embed(self, sound: Sound, *, sample_rate: int | None = None, **asked: Any) -> Answer:
        """The vector of a sound."""
        return await self.send(calls.embed(upload(sound, sample_rate), asked))

    async def classify(
        self, sound: Sound, *, sample_rate: int | None = None, **asked: Any
    ) -> Answer:
        """What one classifier says of a sound."""
        return await self.send(calls.classify(upload(sound, sample_rate), asked))

    async def analyze(
        self, sound: Sound, *, sample_rate: int | None = None, **asked: Any
    ) -> Answer:
        """The vector, what every classifier says, and what the recording is like."""
        return await self.send(calls.analyze(upload(sound, sample_rate), asked))

    async def inspect(
        self, sound: Sound, *, sample_rate: int | None = None, **asked: Any
    ) -> dict[str, Any]:
        """Whether a file would be accepted, and if not, why."""
        return await self.send(calls.inspect(upload(sound, sample_rate), asked))

    def stream_embeddings(self, path: str | Path, **asked: Any) -> "AsyncLongAnswer":
        """Vectors of a recording of hours, window by window; needs `window_s`."""
        return AsyncLongAnswer(self, calls.streamed(calls.embed(upload(path), asked)))

    def stream_labels(self, path: str | Path, **asked: Any) -> "AsyncLongAnswer":
        """Labels of a recording of hours, window by window."""
        asked = {"granularity": "window"} | asked
        return AsyncLongAnswer(self, calls.streamed(calls.classify(upload(path), asked)))

    def listen(
        self, blocks: AsyncIterable[Block], *, sample_rate: int, **asked: Any
    ) -> AsyncIterator[Window]:
        """Hear a live stream: blocks of samples in, a window for every hop out."""
        return listen_async(LiveRequest(self.connection, sample_rate, asked), blocks)

    def embed_many(
        self, paths: Iterable[str | Path], *, journal: str | Path | None = None, **options: Any
    ) -> AsyncIterator[Item]:
        """The vectors of any number of files, several at a time, in the order they are done."""
        return self._many(calls.embed, paths, journal, options)

    def classify_many(
        self, paths: Iterable[str | Path], *, journal: str | Path | None = None, **options: Any
    ) -> AsyncIterator[Item]:
        """The labels of any number of files; as `embed_many`."""
        return self._many(calls.classify, paths, journal, options)

    def collection(self, name: str) -> AsyncCollection:
        """A collection by its name, there or to be made."""
        return AsyncCollection(self, name)

    async def collections(self) -> list[CollectionInfo]:
        """All collections of the key."""
        return await self.send(collection_calls.collections())

    @property
    def jobs(self) -> AsyncJobs:
        """Long recordings and many files, worked on after the answer."""
        return AsyncJobs(self)

    async def teach(self, name: str, *, collection: str, **asked: Any) -> Taught:
        """Make a classifier of a collection's labels; it answers at once, as `head=name`.

        Args:
            name: what it is called; one of that name gets a new version.
            collection: whose labels it learns from.
            asked: labels, task, unlabelled, description, licence, seed.
        """
        document = {"name": name, "collection": collection, **asked}
        return await self.send(collection_calls.teach(document))

    async def next_to_label(self, head: str, *, collection: str, **asked: Any) -> list[Proposal]:
        """Windows of a collection that nobody has labelled and that would teach the most."""
        return await self.send(
            collection_calls.proposals(head, {"collection": collection, **asked})
        )

    async def download(self, head: str, path: str | Path) -> Path:
        """A taught classifier as an ONNX file, which is there whole or not at all."""
        return saved(await self.send(collection_calls.download(head)), path)

    async def forget(self, head: str) -> None:
        """Delete a taught classifier."""
        await self.send(collection_calls.forget(head))

    async def models(self) -> list[Card]:
        """The encoders that are served."""
        return await self.send(calls.models())

    async def classifiers(self) -> list[Card]:
        """The classifiers that are served."""
        return await self.send(calls.classifiers())

    async def limits(self) -> dict[str, Any]:
        """What a request may hold."""
        return await self.send(calls.get("limits"))

    async def usage(self) -> dict[str, Any]:
        """What was used since the service started."""
        return await self.send(calls.get("usage"))

    async def send(self, call: Call[T]) -> T:
        """Send a call until it is answered, or refused for good.

        Raises:
            ServiceError: the service refused for good, or for longer than `retries` allows.
            Unreachable: no answer came.
        """
        async with self._answered(call, is_read=True) as response:
            return call.answer(response.content)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Use the client in an `async with`, which closes it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    @asynccontextmanager
    async def _answered(
        self, call: Call[Any], *, is_read: bool = False
    ) -> AsyncIterator[httpx.Response]:
        """A response that is no refusal; its body is still to be read, unless `is_read` says so."""
        spent_s = 0.0
        for attempt in count():
            outcome = await self._attempt(call, is_read)
            if isinstance(outcome, httpx.Response):
                try:
                    yield outcome
                except httpx.RequestError as error:
                    raise self.connection.failed(error).error from error
                finally:
                    await outcome.aclose()
                return
            pause_s = self.retries.pause_s(
                outcome, attempt, spent_s, repeats=call.repeats, found=self._is_found
            )
            if pause_s is None:
                raise outcome.error
            self.refusals += outcome.is_refusal
            await asyncio.sleep(pause_s)
            spent_s += pause_s

    async def _attempt(self, call: Call[Any], is_read: bool) -> httpx.Response | Failure:
        try:
            with opened(call) as file:
                pieces = call.body.pieces_async() if call.body and file is None else ()
                request = self._http.build_request(**request_of(call, file, pieces))
                response = await self._http.send(request, stream=True)
            self._is_found = True
            if response.is_success and not is_read:
                return response
            body = await response.aread()
        except httpx.RequestError as error:
            return self.connection.failed(error)
        if response.is_success:
            return response
        await response.aclose()
        return refused(response.status_code, response.headers, body)

    def _many(
        self,
        call: Callable[[Upload, Mapping[str, Any]], Call[Answer]],
        paths: Iterable[str | Path],
        journal: str | Path | None,
        options: dict[str, Any],
    ) -> AsyncIterator[Item]:
        parallel: int = options.pop("parallel", 8)
        progress: Callable[[Progress], None] | None = options.pop("progress", None)
        batch = Batch([Path(path) for path in several(paths, "paths")], journal, progress, parallel)

        async def one(path: Path) -> Answer:
            return await self.send(call(upload(path), options))

        return run_batch(batch, one)


class AsyncLongAnswer:
    """The answer to a long recording: iterate for its windows, then ask for the `whole`."""

    def __init__(self, client: AsyncClient, call: Call[Answer]) -> None:
        self._client, self._call = client, call
        self._lines = Lines(call.body.name if call.body else None)

    async def __aiter__(self) -> AsyncIterator[Window]:
        """The windows as they come.

        Raises:
            ServiceError: the recording is refused, perhaps after some windows.
            Unreachable: the answer broke off.
        """
        async with self._client._answered(self._call) as response:
            async for line in response.aiter_lines():
                if (window := self._lines.read(line)) is not None:
                    yield window
        self._lines.check()

    async def whole(self) -> Answer:
        """The answer for the recording as a whole; the windows that have not been read are.

        Raises:
            ServiceError: the recording is refused.
            Unreachable: the answer broke off.
        """
        if self._lines.whole is None:
            async for _ in self:
                pass
        assert self._lines.whole is not None
        return self._lines.whole
