"""Audio files and members of tars -> 16 kHz int16 PCM, in processes that may die."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from models import audio
from models.limits import AudioError
from models.pcm import pcm16
from models.sources import Item


class Clip(NamedTuple):
    """Little-endian int16 at 16 kHz, its digest, and what was noticed about the file."""

    pcm: bytes
    sha256: bytes
    warnings: tuple[str, ...] = ()


CLIPPED = 1 + 2**-15  # the loudest sample that 16 bits hold but for their rounding
Result = Clip | AudioError | Literal["crashed"]


def decode_all(items: Iterator[Item], n_workers: int) -> Iterator[tuple[Item, Result]]:
    """Decode in parallel, in the order of `items`, with a bounded number of clips in memory.

    Args:
        items: what to decode; drawn as it is needed.
        n_workers: processes; 0: this process itself.
    """
    if n_workers == 0:
        yield from ((item, _decode(item)) for item in items)
        return
    finished = False
    while not finished:
        flying: deque[Item] = deque()
        try:
            yield from _in_order(items, flying, n_workers)
            finished = True
        except BrokenProcessPool:  # a decoder died: find out on which of the files in flight
            for item in flying:
                yield item, _decode_alone(item)


def _decode(item: Item) -> Clip | AudioError:
    noticed: list[str] = []
    n_samples = n_clipped = 0
    parts = []
    try:
        source = Path(item.path) if item.size < 0 else item.read()
        for block in audio.stream(source, warn=noticed.append):
            n_samples += len(block)
            n_clipped += int((np.abs(block) > CLIPPED).sum())
            parts.append(pcm16(block).tobytes())
    except AudioError as error:
        return error
    if n_clipped:
        noticed.append(
            f"{n_clipped} of {n_samples} samples lie beyond full scale and were clipped: a store "
            "holds 16 bits. Scale the file to [-1, 1] to keep them."
        )
    pcm = b"".join(parts)
    return Clip(pcm, hashlib.sha256(pcm).digest(), tuple(noticed))


def _in_order(
    items: Iterator[Item], flying: deque[Item], n_workers: int
) -> Iterator[tuple[Item, Result]]:
    """Decode in a pool; `flying` holds the items whose result was not given yet."""
    pending: deque[Future[Clip | AudioError]] = deque()
    pool = _pool(n_workers)
    try:
        for item in items:
            flying.append(item)
            pending.append(pool.submit(_decode, item))
            if len(pending) == 2 * n_workers:
                result = pending.popleft().result()
                yield flying.popleft(), result
        while pending:
            result = pending.popleft().result()
            yield flying.popleft(), result
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_alone(item: Item) -> Result:
    try:
        with _pool(1) as pool:
            return pool.submit(_decode, item).result()
    except BrokenProcessPool:
        return "crashed"


def _pool(n_workers: int) -> ProcessPoolExecutor:
    """Fresh interpreters: a fork of a process that runs threads or CUDA is not safe."""
    return ProcessPoolExecutor(
        n_workers,
        multiprocessing.get_context("spawn"),
        initializer=_begin,
    )


def _begin() -> None:
    """In a new process: Ctrl-C is the parent's to answer, and a parent that was killed is followed.

    Else it would wait for files for ever, since it holds both ends of the pipe that brings them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
