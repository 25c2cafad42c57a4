"""A collection that is sent as a file, some windows at a time, however many there are."""

from contextlib import AsyncExitStack

from fastapi import Request
from starlette.responses import StreamingResponse

from service.collecting import Collecting
from service.collections.records import Collection
from service.context import Context
from service.formats.exports import FORMS, ROWS, Export, parts_of
from service.streams.lines import begun
from service.threads import one_by_one

COPIES = 3  # of them: as they are read, as the file holds them, and on their way


async def send_export(
    request: Request, shared: Context, collected: Collecting, collection: Collection, form: Export
) -> StreamingResponse:
    """Send a collection's windows as they are when they are read.

    Raises:
        Problem: there is no place for another stream.
        ServiceError: there is no memory; for an array that is as large as all vectors.
    """
    kind = FORMS[form]
    rows = collection.n_windows if form == "npy" else min(ROWS, collection.n_windows)
    async with AsyncExitStack() as stack:
        stack.enter_context(shared.streams.slot())
        await request.state.share.take(COPIES * 4 * rows * collection.terms.dimensions)
        content = one_by_one(kind.write(collection, parts_of(collected.store, collection)))
        response = await begun(request, shared, content, kind.media_type, stack)
        name = f"{collection.name.rpartition(':')[2]}.{kind.suffix}"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        response.headers["Viola-Space-Id"] = collection.terms.space_id
        return response
    raise AssertionError("nothing is suppressed")
