"""A job's file -> blocks of samples, by the decoders that requests have.

Small files go to the pool, whose processes are there; others have a process of their own, as
streams do. A small file that turns out to be long is one of the others.
"""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from models.audio import Warn
from models.limits import AudioError
from models.runtime import Floats
from models.selection import Selection
from service.audio.decoder import Decoded
from service.context import Context
from service.traffic.budget import Costs, Share
from service.uploads.spool import Spooled

SMALL_BYTES = 1 << 20
_LONG = ("duration", "decoded_bytes")  # refusals of the pool alone


async def blocks_of(
    shared: Context,
    upload: Spooled,
    selection: Selection,
    share: Share,
    spend: Callable[[float], None],
    warn: Warn,
) -> AsyncGenerator[Floats, None]:
    """Blocks (S,) at 16 kHz; `spend` is told of what was decoded and comes in no block.

    Raises:
        AudioError: for anything that is wrong with the file, perhaps after some blocks.
        ServiceError: the file takes more than one may, or memory is full.
    """
    decoded = None
    if os.fstat(upload.file.fileno()).st_size <= SMALL_BYTES:
        decoded = await _at_once(shared, upload, selection, share, spend)
    if decoded is not None:
        for sentence in decoded.warnings:
            warn(sentence)
        yield decoded.samples
        return
    async with aclosing(shared.recordings.blocks(upload.file, selection, warn)) as blocks:
        async for block in blocks:
            yield block


async def _at_once(
    shared: Context,
    upload: Spooled,
    selection: Selection,
    share: Share,
    spend: Callable[[float], None],
) -> Decoded | None:
    """Decode a small file at once; None if it turns out to be long."""
    heard: list[float] = []
    data = os.pread(upload.file.fileno(), SMALL_BYTES, 0)
    try:
        return await shared.engine.decoder.read(data, Costs(share, heard.append), selection)
    except AudioError as error:
        if error.reason in _LONG:
            return None
        spend(sum(heard))
        raise
