"""`viola.Client`: the service as Python functions."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from viola.client import calls, collection_calls
from viola.client.answers import Answer, Card, Window
from viola.client.batch import Batch, Item, Progress
from viola.client.batch_threads import run_batch
from viola.client.calls import Call
from viola.client.collection import Collection, saved
from viola.client.connection import DEFAULT_ADDRESS, Connection, opened, request_of
from viola.client.errors import Failure, refused
from viola.client.jobs import Jobs
from viola.client.lines import Lines
from viola.client.live import Block, LiveRequest, listen
from viola.client.records import CollectionInfo, Proposal, Taught
from viola.client.retries import Retries, checked
from viola.client.sounds import Sound, Upload, several, upload

T = TypeVar("T")


class Client:
    """A service of Viola.

        with viola.Client("http://127.0.0.1:8000") as client:
            client.embed("speech.opus").embedding

    What the service refuses for now is sent again, when it says, until the budget of `retries` is
    spent. One client may be used from several threads. `refusals` counts what it had to send again.

    Args:
        address: of the service.
        key: the API key, where keys are on.
        retries: how long to go on trying.
        timeout_s: how long nothing may come while an answer is waited for.
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
        self._counting = threading.Lock()
        self._http = httpx.Client(**self.connection.options())

    def embed(self, sound: Sound, *, sample_rate: int | None = None, **asked: Any) -> Answer:
        """The vector of a sound.

        Args:
            sound: a path, a file's bytes, or samples.
            sample_rate: Hz, of samples.
            asked: parameters of `POST /v1/audio/embeddings`: model, window_s, hop_s, dimensions,
                channel, start_s, end_s.

        Raises:
            ServiceError: the service refused for good, or for longer than `retries` allows.
            Unreachable: no answer came.
        """
        return self.send(calls.embed(upload(sound, sample_rate), asked))

    def classify(self, sound: Sound, *, sample_rate: int | None = None, **asked: Any) -> Answer:
        """What one classifier says of a sound.

        Args:
            sound: a path, a file's bytes, or samples.
            sample_rate: Hz, of samples.
            asked: parameters of `POST /v1/audio/classifications`: head, model, top_k, threshold,
                window_s and hop_s for labels over time, channel, start_s, end_s.

        Raises:
            ServiceError: the service refused for good, or for longer than `retries` allows.
            Unreachable: no answer came.
        """
        return self.send(calls.classify(upload(sound, sample_rate), asked))

    def analyze(self, sound: Sound, *, sample_rate: int | None = None, **asked: Any) -> Answer:
        """The vector, what every classifier says, and what the recording is like."""
        return self.send(calls.analyze(upload(sound, sample_rate), asked))

    def inspect(
        self, sound: Sound, *, sample_rate: int | None = None, **asked: Any
    ) -> dict[str, Any]:
        """Whether a file would be accepted, and if not, why."""
        return self.send(calls.inspect(upload(sound, sample_rate), asked))

    def stream_embeddings(self, path: str | Path, **asked: Any) -> "LongAnswer":
        """Vectors of a recording of hours, window by window, while they are computed.

        Needs `window_s`. The file is sent from the disk; memory grows with neither way.
        """
        return LongAnswer(self, calls.streamed(calls.embed(upload(path), asked)))

    def stream_labels(self, path: str | Path, **asked: Any) -> "LongAnswer":
        """Labels of a recording of hours, window by window, while they are computed."""
        asked = {"granularity": "window"} | asked
        return LongAnswer(self, calls.streamed(calls.classify(upload(path), asked)))

    def listen(
        self, blocks: Iterable[Block], *, sample_rate: int, **asked: Any
    ) -> Iterator[Window]:
        """Hear a live stream: blocks of samples in, a window for every hop out, as it is heard.

        Args:
            blocks: samples (S,), all floats or all int16, of any length.
            sample_rate: Hz, 8,000 to 48,000.
            asked: window_s, hop_s, model, head, top_k.

        Raises:
            ServiceError: the service refused or broke off.
            Unreachable: nobody listens there.
            ValueError: a block that is none of these.
        """
        return listen(LiveRequest(self.connection, sample_rate, asked), blocks)

    def embed_many(
        self, paths: Iterable[str | Path], *, journal: str | Path | None = None, **options: Any
    ) -> Iterator[Item]:
        """The vectors of any number of files, several at a time, in the order they are done.

        A file that fails is an item with its error and stops none of the others.

        Args:
            paths: the files.
            journal: a file that keeps what was answered: a batch that was broken off and is begun
                again sends nothing twice. The same files with another question need another one.
            options: `parallel` (8), `progress` (called with a `Progress` after each file), and
                the parameters of `embed`.
        """
        return self._many(calls.embed, paths, journal, options)

    def classify_many(
        self, paths: Iterable[str | Path], *, journal: str | Path | None = None, **options: Any
    ) -> Iterator[Item]:
        """The labels of any number of files; as `embed_many`."""
        return self._many(calls.classify, paths, journal, options)

    def collection(self, name: str) -> Collection:
        """A collection by its name, there or to be made."""
        return Collection(self, name)

    def collections(self) -> list[CollectionInfo]:
        """All collections of the key."""
        return self.send(collection_calls.collections())

    @property
    def jobs(self) -> Jobs:
        """Long recordings and many files, worked on after the answer."""
        return Jobs(self)

    def teach(self, name: str, *, collection: str, **asked: Any) -> Taught:
        """Make a classifier of a collection's labels; it answers at once, as `head=name`.

        Args:
            name: what it is called; one of that name gets a new version.
            collection: whose labels it learns from.
            asked: labels, task, unlabelled, description, licence, seed.
        """
        document = {"name": name, "collection": collection, **asked}
        return self.send(collection_calls.teach(document))

    def next_to_label(self, head: str, *, collection: str, **asked: Any) -> list[Proposal]:
        """Windows of a collection that nobody has labelled and that would teach the most."""
        return self.send(collection_calls.proposals(head, {"collection": collection, **asked}))

    def download(self, head: str, path: str | Path) -> Path:
        """A taught classifier as an ONNX file, which is there whole or not at all."""
        return saved(self.send(collection_calls.download(head)), path)

    def forget(self, head: str) -> None:
        """Delete a taught classifier."""
        self.send(collection_calls.forget(head))

    def models(self) -> list[Card]:
        """The encoders that are served."""
        return self.send(calls.models())

    def classifiers(self) -> list[Card]:
        """The classifiers that are served."""
        return self.send(calls.classifiers())

    def limits(self) -> dict[str, Any]:
        """What a request may hold."""
        return self.send(calls.get("limits"))

    def usage(self) -> dict[str, Any]:
        """What was used since the service started."""
        return self.send(calls.get("usage"))

    def send(self, call: Call[T], *, is_over: threading.Event | None = None) -> T:
        """Send a call until it is answered, or refused for good.

        Args:
            call: the call.
            is_over: once it is set, nothing is tried again.

        Raises:
            ServiceError: the service refused for good, or for longer than `retries` allows.
            Unreachable: no answer came.
        """
        with self._answered(call, is_read=True, is_over=is_over) as response:
            return call.answer(response.content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Use the client in a `with`, which closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    @contextmanager
    def _answered(
        self, call: Call[Any], *, is_read: bool = False, is_over: threading.Event | None = None
    ) -> Iterator[httpx.Response]:
        """A response that is no refusal; its body is still to be read, unless `is_read` says so."""
        spent_s = 0.0
        for attempt in count():
            outcome = self._attempt(call, is_read)
            if isinstance(outcome, httpx.Response):
                try:
                    yield outcome
                except httpx.RequestError as error:
                    raise self.connection.failed(error).error from error
                finally:
                    outcome.close()
                return
            pause_s = self.retries.pause_s(
                outcome, attempt, spent_s, repeats=call.repeats, found=self._is_found
            )
            if pause_s is None:
                raise outcome.error
            with self._counting:
                self.refusals += outcome.is_refusal
            if is_over is None:
                time.sleep(pause_s)
            elif is_over.wait(pause_s):
                raise outcome.error
            spent_s += pause_s

    def _attempt(self, call: Call[Any], is_read: bool) -> httpx.Response | Failure:
        try:
            with opened(call) as file:
                pieces = call.body.pieces() if call.body and file is None else ()
                request = self._http.build_request(**request_of(call, file, pieces))
                response = self._http.send(request, stream=True)
            self._is_found = True
            if response.is_success and not is_read:
                return response
            body = response.read()
        except httpx.RequestError as error:
            return self.connection.failed(error)
        if response.is_success:
            return response
        response.close()
        return refused(response.status_code, response.headers, body)

    def _many(
        self,
        call: Callable[[Upload, Mapping[str, Any]], Call[Answer]],
        paths: Iterable[str | Path],
        journal: str | Path | None,
        options: dict[str, Any],
    ) -> Iterator[Item]:
        parallel: int = options.pop("parallel", 8)
        progress: Callable[[Progress], None] | None = options.pop("progress", None)
        batch = Batch([Path(path) for path in several(paths, "paths")], journal, progress, parallel)

        def one(path: Path) -> Answer:
            return self.send(call(upload(path), options), is_over=batch.is_over)

        return run_batch(batch, one)


class LongAnswer:
    """The answer to a long recording: iterate for its windows, then ask for the `whole`."""

    def __init__(self, client: Client, call: Call[Answer]) -> None:
        self._client, self._call = client, call
        self._lines = Lines(call.body.name if call.body else None)

    def __iter__(self) -> Iterator[Window]:
        """The windows as they come.

        Raises:
            ServiceError: the recording is refused, perhaps after some windows.
            Unreachable: the answer broke off.
        """
        with self._client._answered(self._call) as response:
            for line in response.iter_lines():
                if (window := self._lines.read(line)) is not None:
                    yield window
        self._lines.check()

    @property
    def whole(self) -> Answer:
        """The answer for the recording as a whole; the windows that have not been read are.

        Raises:
            ServiceError: the recording is refused.
            Unreachable: the answer broke off.
        """
        if self._lines.whole is None:
            for _ in self:
                pass
        assert self._lines.whole is not None
        return self._lines.whole
