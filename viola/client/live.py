"""A live stream over a WebSocket: samples in, windows out."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio import client as asyncio_client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync import client as sync_client

from viola.client import answers
from viola.client.answers import Window
from viola.client.connection import Connection
from viola.client.errors import ServiceError, Unreachable, broken, refused

MESSAGE_BYTES = 1 << 19  # the service takes messages of up to 1 MiB
END = json.dumps({"end": True})

Block = NDArray[np.float32] | NDArray[np.int16]


@dataclass(frozen=True)
class LiveRequest:
    """What a live stream is asked for."""

    connection: Connection
    sample_rate: int
    asked: Mapping[str, Any]

    def opening(self, block: Block) -> str:
        """The first message; the first block says which samples come."""
        given = {name: value for name, value in self.asked.items() if value is not None}
        about = {"sample_rate": self.sample_rate, "output": "base64"}
        return json.dumps(about | {"encoding": _encoding(block)} | given)

    @property
    def handshake(self) -> dict[str, Any]:
        """Arguments of `websockets` for the connection."""
        headers = dict(self.connection.live_headers)
        return {"additional_headers": headers, "compression": None, "max_size": None}


def listen(request: LiveRequest, blocks: Iterable[Block]) -> Iterator[Window]:
    """Send the blocks; the windows come as soon as the service has heard them.

    Raises:
        ServiceError: the service refused or broke off.
        Unreachable: nobody listens there.
    """
    later = iter(blocks)
    first = next(later, None)
    if first is None:
        return
    try:
        with sync_client.connect(request.connection.live_address, **request.handshake) as socket:
            with suppress(ConnectionClosed):  # what broke it off is the last message
                socket.send(request.opening(first))
                for block in _chain(first, later):
                    for message in _messages(block):
                        socket.send(message)
                    yield from _windows(_arrived(socket))
                socket.send(END)
            yield from _windows(socket)
    except InvalidStatus as error:
        raise _refused(error) from None
    except OSError as error:
        raise _unreachable(request, error) from error


async def listen_async(request: LiveRequest, blocks: AsyncIterable[Block]) -> AsyncIterator[Window]:
    """The same on an event loop: blocks are sent while windows are awaited."""

    async def send(socket: Any, first: Block, later: AsyncIterator[Block]) -> None:
        with suppress(ConnectionClosed):
            await socket.send(request.opening(first))
            for message in _messages(first):
                await socket.send(message)
            async for block in later:
                for message in _messages(block):
                    await socket.send(message)
            await socket.send(END)

    later, address = aiter(blocks), request.connection.live_address
    first = await anext(later, None)
    if first is None:
        return
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
    except OSError as error:
        raise _unreachable(request, error) from error


def _arrived(socket: Any) -> Iterator[str]:
    """What has come so far."""
    with suppress(TimeoutError):
        while True:
            yield socket.recv(timeout=0)


def _windows(texts: Iterable[str | bytes]) -> Iterator[Window]:
    for text in texts:
        members = json.loads(text)
        if members["object"] == "error":
            raise broken(members["error"])
        if members["object"] == "window":
            yield answers.window(members)


def _chain(first: Block, later: Iterator[Block]) -> Iterator[Block]:
    yield first
    yield from later


def _encoding(block: Block) -> str:
    return "s16le" if block.dtype == np.int16 else "f32le"


def _messages(block: Block) -> Iterator[bytes]:
    pcm = block.astype("<i2" if block.dtype == np.int16 else "<f4").tobytes()
    return (pcm[at : at + MESSAGE_BYTES] for at in range(0, len(pcm), MESSAGE_BYTES))


def _refused(error: Any) -> ServiceError | Unreachable:
    response = error.response
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    return refused(response.status_code, headers, response.body or b"").error


def _unreachable(request: LiveRequest, error: OSError) -> Unreachable:
    return Unreachable(f"no answer from {request.connection.address}: {error}")
