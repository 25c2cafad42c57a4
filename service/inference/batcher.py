"""Batches across requests: tiles and clips of a like length share one inference.

There is no waiting for a batch to fill: what has come while the last one ran makes the next one.
Each piece has a due time, and the batch is built around the piece that is due first. A piece is due
when a service that works through its request at `PROMISED_RATE` reaches the end of the piece: a
second of sound after 0.1 s, the second tile of a recording after 2 s. So a short clip passes all
but the first tile of a long recording that came with it, and the recording keeps moving however
many short clips there are.

Letters: `S` samples, `T` frames of features, `D` embedding dim, `N` rows of a batch.
"""

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import structlog

from models.audio import SAMPLE_RATE
from models.runtime import Encoder, Floats, Output
from models.tiles import TILE_S, Tile, batch_size
from service.exceptions import ServiceError
from service.inference.watchdog import Heartbeat
from service.inference.worker import Worker

PROMISED_RATE = 10.0  # seconds of audio a second that a request gets, however busy the service is
TILES_AHEAD = 2  # of one recording in the queue or running
RECORDING_TILE_S = 5.12  # a clip that comes meanwhile waits for half as long as for a whole batch

log = structlog.get_logger()


class Deadlines:
    """The due times of one request's pieces, from the rate that every request is promised."""

    def __init__(self) -> None:
        self._until_s = 0.0

    def next_s(self, audio_s: float) -> float:
        """When the next piece, of so many seconds, is due."""
        self._until_s = max(self._until_s, time.monotonic()) + audio_s / PROMISED_RATE
        return self._until_s


class _Shape(NamedTuple):
    """What the pieces of a batch have in common; `bucket` is in samples."""

    encoder: Encoder
    output: Output
    bucket: int


@dataclass(order=True)
class _Piece:
    """A clip or tile (S,) that waits."""

    due_s: float
    number: int
    samples: Floats = field(compare=False)
    row: "asyncio.Future[Floats]" = field(compare=False)

    @property
    def audio_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


class Batcher:
    """The queue in front of the encoders; used on one event loop.

    A piece whose request is cancelled leaves the queue at once. A batch that fails fails its own
    pieces, and one that hangs is left behind with its thread.

    Attributes:
        queued_s: seconds of audio that wait. Each request has at most `TILES_AHEAD` tiles of a
            recording in the queue, so that the requests in hand bound its length.
        heartbeat: when a row was last asked for, and when one was last computed.
        hung: inferences that were given up and have not come back.
        observe: is told of every batch: its rows, its seconds of audio, how long it took.
    """

    def __init__(self, workers: int = 1, timeout_s: float = 30.0) -> None:
        self.timeout_s = timeout_s
        self.queued_s = 0.0
        self.hung = 0
        self.heartbeat = Heartbeat()
        self.observe: Callable[[int, float, float], None] = lambda rows, audio_s, took_s: None
        self._idle = [Worker(f"inference-{number}") for number in range(workers)]
        self._queues: dict[_Shape, list[_Piece]] = {}
        self._numbers = itertools.count()
        self._running: set[asyncio.Task[None]] = set()

    async def run(
        self, deadlines: Deadlines, encoder: Encoder, output: Output, samples: Floats
    ) -> Floats:
        """The row of one clip or tile (S,), no longer than a tile: -> (D,) or (T, D).

        Raises:
            ServiceError: the inference failed or hung.
        """
        loop = asyncio.get_running_loop()
        shape = _Shape(encoder, output, encoder.tiling.bucket(len(samples)))
        due_s = deadlines.next_s(len(samples) / SAMPLE_RATE)
        piece = _Piece(due_s, next(self._numbers), samples, loop.create_future())
        heapq.heappush(self._queues.setdefault(shape, []), piece)
        self.queued_s += piece.audio_s
        loop.call_soon(self._start)  # once all that comes in this round of the loop is here
        try:
            with self.heartbeat.awaited():
                return await piece.row
        finally:
            self._withdraw(shape, piece)

    async def frames(
        self,
        deadlines: Deadlines,
        encoder: Encoder,
        tiles: AsyncIterator[Tile],
        ahead: int = TILES_AHEAD,
    ) -> AsyncGenerator[Floats, None]:
        """The frames (T, D) of one recording in order; `ahead` of its tiles wait or run at most."""
        begun: deque[tuple[Tile, asyncio.Task[Floats]]] = deque()

        async def first() -> Floats:
            tile, row = begun.popleft()
            return encoder.tiling.own_frames(tile, await row)

        try:
            async for tile in tiles:
                row = asyncio.create_task(self.run(deadlines, encoder, "frames", tile.samples))
                begun.append((tile, row))
                if len(begun) == ahead:
                    yield await first()
            while begun:
                yield await first()
        finally:
            for _, row in begun:
                row.cancel()

    def ahead_s(self) -> float:
        """Seconds of audio that a clip of a tile's length would wait behind if it came now.

        Pieces that are due later than that clip are not counted: it would pass them.
        """
        due_s = time.monotonic() + TILE_S / PROMISED_RATE
        pieces = (piece for queue in self._queues.values() for piece in queue)
        return sum(piece.audio_s for piece in pieces if piece.due_s <= due_s)

    def close(self) -> None:
        """Let what runs finish."""
        for worker in self._idle:
            worker.close()

    def _withdraw(self, shape: _Shape, piece: _Piece) -> None:
        """Take a piece out of the queue that nobody waits for, unless a batch has it already."""
        queue = self._queues.get(shape, [])
        if piece in queue:
            queue.remove(piece)
            heapq.heapify(queue)
            self._note_removed(shape, [piece])

    def _note_removed(self, shape: _Shape, pieces: list[_Piece]) -> None:
        """Subtract the audio of pieces that have left a queue; drop the queue if it is empty."""
        self.queued_s -= sum(piece.audio_s for piece in pieces)
        if not self._queues[shape]:
            del self._queues[shape]
        if not self._queues:
            self.queued_s = 0.0  # without the rounding of many sums

    def _start(self) -> None:
        """Give every idle worker a batch, as long as anything waits."""
        while self._idle and self._queues:
            shape, pieces = self._next()
            task = asyncio.create_task(self._compute(self._idle.pop(), shape, pieces))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next(self) -> tuple[_Shape, list[_Piece]]:
        """Take the next batch: the piece that is due first, and the next ones of its shape."""
        shape, queue = min(self._queues.items(), key=lambda item: item[1][0])
        size = batch_size(len(queue), shape.encoder.tiling.max_rows(shape.bucket))
        pieces = [heapq.heappop(queue) for _ in range(size)]
        self._note_removed(shape, pieces)
        return shape, pieces

    async def _compute(self, worker: Worker, shape: _Shape, pieces: list[_Piece]) -> None:
        started = time.monotonic()
        clips = [piece.samples for piece in pieces]
        work = worker.run(partial(shape.encoder.run_batch, shape.output, clips, shape.bucket))
        try:
            done, _ = await asyncio.wait([work], timeout=self.timeout_s)
            if not done:
                worker = self._give_up(work, worker)
                raise _hung(self.timeout_s)
            _settle(pieces, work.result())
        except ServiceError as error:
            _fail(pieces, error)
        except Exception:
            log.exception("inference failed", rows=len(pieces))
            _fail(pieces, ServiceError("internal", "The model failed on this file."))
        self._idle.append(worker)
        audio_s = sum(piece.audio_s for piece in pieces)
        self.observe(len(pieces), audio_s, time.monotonic() - started)
        self._start()

    def _give_up(self, work: "asyncio.Future[Floats]", worker: Worker) -> Worker:
        """Replace a thread that hangs by a new one; the old one ends if it ever comes back."""
        log.error("inference hangs", seconds=self.timeout_s)
        self.hung += 1
        worker.close()

        def back(work: "asyncio.Future[Floats]") -> None:
            self.hung -= 1
            work.exception()

        work.add_done_callback(back)
        return Worker("inference")


def _settle(pieces: list[_Piece], rows: Floats) -> None:
    for piece, row in zip(pieces, rows, strict=True):
        if not piece.row.done():
            piece.row.set_result(row)


def _fail(pieces: list[_Piece], error: ServiceError) -> None:
    for piece in pieces:
        if not piece.row.done():
            piece.row.set_exception(error)


def _hung(timeout_s: float) -> ServiceError:
    return ServiceError(
        "model-unavailable",
        f"The model has not answered within {timeout_s:g} s.",
        limit=timeout_s,
        unit="s",
        retry_after_s=5,
    )
