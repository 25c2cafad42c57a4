"""A live stream over a WebSocket: samples in, windows out."""

import asyncio
import json
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio import client as asyncio_client
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from viola.client import answers
from viola.client.answers import Window
from viola.client.calls import as_json
from viola.client.connection import Connection
from viola.client.errors import ServiceError, Unreachable, broken, line_of, refused

MESSAGE_BYTES = 1 << 19  # the service takes messages of up to 1 MiB
END = json.dumps({"end": True})

T = TypeVar("T")
Send = Callable[[str | bytes], None]
Texts = SimpleQueue[str | bytes | None]
Block = NDArray[np.float32] | NDArray[np.int16]


@dataclass(frozen=True)
class LiveRequest:
    """What a live stream is asked for."""

    connection: Connection
    sample_rate: int
    asked: Mapping[str, Any]

    def opening(self, encoding: str) -> str:
        """The first message."""
        given = {name: value for name, value in self.asked.items() if value is not None}
        about = {"sample_rate": self.sample_rate, "output": "base64"}
        return as_json(about | {"encoding": encoding} | given)

    @property
    def handshake(self) -> dict[str, Any]:
        """Arguments of `websockets` for the connection."""
        headers = dict(self.connection.headers)
        return {
            "additional_headers": headers,
            "compression": None,
            "max_size": None,
            "ping_timeout": self.connection.timeout_s,  # it is answered behind what was sent before
        }


def listen(request: LiveRequest, blocks: Iterable[Block]) -> Iterator[Window]:
    """Send the blocks; the windows come as soon as the service has heard them.

    Raises:
        ServiceError: the service refused or broke off.
        Unreachable: nobody listens there.
        ValueError: a block that is no mono samples, or of another kind than the first.
    """
    later = iter(blocks)
    first = next(later, None)
    if first is None:
        return
    encoding, own = _encoding(first), list[Exception]()
    try:
        with _reading(request) as (send, texts):
            with suppress(ConnectionClosed):  # the last message says why
                send(request.opening(encoding))
                for block in _chain(first, later, own):
                    for message in _messages(block, encoding):
                        send(message)
                        yield from _windows(_arrived(texts))
                send(END)
            yield from _windows(iter(texts.get, None))
    except InvalidStatus as error:
        raise _refused(error) from None
    except (OSError, WebSocketException) as error:
        if error in own:
            raise
        raise _unreachable(request, error) from error


@contextmanager
def _reading(request: LiveRequest) -> Iterator[tuple[Send, Texts]]:
    """A stream whose answers are read while something is sent: a function that sends, and a queue.

    The service stops reading while its answers are not read, and the threaded client of
    `websockets` does not read while it sends: each would wait for the other. So the client for an
    event loop, which does both, runs here in a thread of its own. None ends the queue.
    """
    texts: Texts = SimpleQueue()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="viola-live", daemon=True)
    thread.start()

    async def opened() -> ClientConnection:
        return await asyncio_client.connect(request.connection.live_address, **request.handshake)

    async def read(socket: ClientConnection) -> None:
        try:
            async for text in socket:
                texts.put(text)
        finally:
            texts.put(None)

    def done(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        socket = done(opened())
        reader = asyncio.run_coroutine_threadsafe(read(socket), loop)
        try:
            yield lambda message: done(socket.send(message)), texts
            reader.result()  # raises what ended the reading
        finally:
            done(socket.close())
            wait([reader])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def listen_async(request: LiveRequest, blocks: AsyncIterable[Block]) -> AsyncIterator[Window]:
    """The same on an event loop: blocks are sent while windows are awaited."""

    async def send(socket: Any, first: Block, later: AsyncIterator[Block]) -> None:
        try:
            await socket.send(request.opening(encoding))
            for message in _messages(first, encoding):
                await socket.send(message)
            async for block in _chain_async(later, own):
                for message in _messages(block, encoding):
                    await socket.send(message)
            await socket.send(END)
        except ConnectionClosed:
            pass
        except Exception:  # raised by the blocks; else whoever awaits windows would wait for ever
            await socket.close()
            raise

    later, address = aiter(blocks), request.connection.live_address
    first = await anext(later, None)
    if first is None:
        return
    encoding, own = _encoding(first), list[Exception]()
    try:
        async with asyncio_client.connect(address, **request.handshake) as socket:
            sender = asyncio.create_task(send(socket, first, later))
            try:
                async for text in socket:
                    for window in _windows([text]):
                        yield window
                await sender
            finally:
                sender.cancel()
    except InvalidStatus as error:
        raise _refused(error) from None
    except (OSError, WebSocketException) as error:
        if error in own:
            raise
        raise _unreachable(request, error) from error


def _arrived(texts: Texts) -> Iterator[str | bytes]:
    """The texts that have come so far; the None behind the last one stays in the queue."""
    for _ in range(texts.qsize()):
        if (text := texts.get()) is None:
            texts.put(None)
            return
        yield text


def _windows(texts: Iterable[str | bytes]) -> Iterator[Window]:
    for text in texts:
        members = line_of(text)
        if members["object"] == "error":
            raise broken(members["error"])
        if members["object"] == "window":
            yield answers.window(members)


def _chain(first: Block, later: Iterator[Block], own: list[Exception]) -> Iterator[Block]:
    """All blocks. An error that the caller's blocks raise is noted in `own`: it is not ours."""
    yield first
    try:
        yield from later
    except Exception as error:
        own.append(error)
        raise


async def _chain_async(later: AsyncIterator[Block], own: list[Exception]) -> AsyncIterator[Block]:
    try:
        async for block in later:
            yield block
    except Exception as error:
        own.append(error)
        raise


def _encoding(block: Block) -> str:
    """The encoding in which a block is sent.

    Raises:
        ValueError: a stream cannot have blocks of this shape or type.
    """
    if not isinstance(block, np.ndarray):
        raise ValueError(f"a block is a {type(block).__name__}; expected an array of samples (S,)")
    if block.ndim != 1:
        raise ValueError(
            f"a block of shape {block.shape}; expected (S,): take one channel, block[:, 0], or "
            "their mean, block.mean(axis=1)"
        )
    if block.dtype != np.int16 and block.dtype.kind != "f":
        raise ValueError(f"a block of {block.dtype}; expected floats in [-1, 1], or int16")
    return "s16le" if block.dtype == np.int16 else "f32le"


def _messages(block: Block, encoding: str) -> Iterator[bytes]:
    if _encoding(block) != encoding:
        raise ValueError(f"a block of {block.dtype} in a stream of {encoding}: send one kind only")
    pcm = block.astype("<i2" if encoding == "s16le" else "<f4").tobytes()
    return (pcm[at : at + MESSAGE_BYTES] for at in range(0, len(pcm), MESSAGE_BYTES))


def _refused(error: Any) -> ServiceError | Unreachable:
    response = error.response
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    return refused(response.status_code, headers, response.body or b"").error


def _unreachable(request: LiveRequest, error: Exception) -> Unreachable:
    told = str(error) or type(error).__name__
    return Unreachable(
        f"no answer from {request.connection.shown}: {told}{request.connection.proxied()}"
    )
