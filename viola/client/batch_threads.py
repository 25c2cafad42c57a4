"""A batch in threads: so many files are in hand at a time, however many there are."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path

from viola.client.answers import Answer
from viola.client.batch import Batch, Item
from viola.client.errors import ServiceError, Unreachable


def run_batch(batch: Batch, one: Callable[[Path], Answer]) -> Iterator[Item]:
    """Every file of the batch, as they are done; those of the journal first."""
    threads = ThreadPoolExecutor(batch.parallel, thread_name_prefix="viola-batch")
    try:
        for item in batch.kept:
            yield batch.ended(item)
        left = iter(batch.left)
        running: set[Future[Item]] = set()
        while True:
            more = islice(left, batch.parallel - len(running))
            running |= {threads.submit(_ended, batch, one, path) for path in more}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        batch.is_over.set()
        threads.shutdown(cancel_futures=True)
        batch.close()


def _ended(batch: Batch, one: Callable[[Path], Answer], path: Path) -> Item:
    try:
        item = Item(path, one(path))
    except (ServiceError, Unreachable, OSError) as error:
        item = Item(path, error=error)
    return batch.ended(item)
