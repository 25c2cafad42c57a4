"""Work that compares the windows of a collection with each other; too many are refused unread.

It has a place of its own, so that it takes none from requests with audio, and counts in the memory
of all requests. At the deadline its client gets an answer; a thread that has begun goes on to its
end and keeps the place until then.
"""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from service.collecting import Collecting
from service.collections.filters import Filter
from service.collections.records import Collection, Size, Vectors
from service.context import Context
from service.threads import in_thread
from service.traffic.budget import Share
from service.traffic.patience import while_connected, within

T = TypeVar("T")

COPIES = 2  # of the vectors: as they are read and put together, or as they are and at length 1


async def in_its_place(
    request: Request, shared: Context, collected: Collecting, work: Coroutine[Any, Any, T]
) -> T:
    """Await work that takes seconds, one at a time.

    Raises:
        Problem: another one is in hand, or it takes too long.
        ClientDisconnect: nobody waits for the answer any more.
    """
    try:
        with collected.comparisons.slot():
            timeout_s = shared.settings.request_timeout_s
            return await while_connected(request, within(timeout_s, work))
    finally:
        work.close()  # where it has not begun


async def compared(
    share: Share,
    collected: Collecting,
    collection: Collection,
    filter: Filter,
    check: Callable[[Size], None],
    compare: Callable[[Vectors], T],
) -> T:
    """What `compare` makes of the windows of the items for which a filter holds.

    Args:
        share: of the memory.
        collected: the store.
        collection: whose windows.
        filter: which of its items.
        check: refuses too many of them.
        compare: runs in a thread.

    Raises:
        StoreError: there are too many.
        Problem: memory is full.
    """
    store = collected.store

    def read() -> Vectors:
        if not filter:
            return store.windows.all(collection)
        return store.windows.of(collection, store.items.keys(collection, filter))

    size = await in_thread(store.items.size, collection, filter)
    check(size)
    await share.take(COPIES * 4 * size.windows * collection.terms.dimensions)
    return await in_thread(compare, await in_thread(read))
