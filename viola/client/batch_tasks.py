"""A batch in tasks of an event loop: so many files are in hand at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from pathlib import Path

from viola.client.answers import Answer
from viola.client.batch import Batch, Item
from viola.client.errors import ServiceError, Unreachable


async def run_batch(batch: Batch, one: Callable[[Path], Awaitable[Answer]]) -> AsyncIterator[Item]:
    """Every file of the batch, as they are done; those of the journal first."""
    running: set[asyncio.Task[Item]] = set()
    try:
        for item in batch.kept:
            yield batch.ended(item)
        left = iter(batch.left)
        while True:
            more = islice(left, batch.parallel - len(running))
            running |= {asyncio.create_task(_ended(batch, one, path)) for path in more}
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        batch.close()


async def _ended(batch: Batch, one: Callable[[Path], Awaitable[Answer]], path: Path) -> Item:
    try:
        item = Item(path, await one(path))
    except (ServiceError, Unreachable, OSError) as error:
        item = Item(path, error=error)
    return batch.ended(item)
