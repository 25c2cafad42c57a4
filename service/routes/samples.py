"""A file, or the kept audio of an item -> the samples that every model hears, as a WAV."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.audio.files import Upload
from service.clips import Clip
from service.context import Collected, Context, IdInPath, NameInPath, Shared
from service.exchange import decode, exchange, exchange_with
from service.formats.answers import check_outcomes
from service.formats.wav import WAV, wav_response
from service.openapi import Responses, audio_body, problem_responses
from service.parameters import SelectionParameters
from service.problem_types import AUDIO_PROBLEMS
from service.problems import Problem, invalid_parameter
from service.settings import Settings
from service.telemetry.timing import Timing
from service.threads import in_thread
from service.traffic.access import needs_key
from service.uploads.body import FILE_FIELD, Body, Parse, keep

router = APIRouter()

_ANSWERS: Responses = {
    200: {
        "description": "16 kHz, one channel, 16 bits.",
        "content": {WAV: {"schema": {"type": "string", "format": "binary"}}},
    }
}
_OF_BODIES_AND_MODELS = {
    "bad-request",
    "missing-file",
    "foreign-origin",
    "model-not-found",
    "body-timeout",
    "body-too-large",
    "too-many-files",
    "too-many-windows",
    "unsupported-media-type",
    "content-encoding",
    "model-unavailable",
}
_OF_ITEMS = [slug for slug in AUDIO_PROBLEMS if slug not in _OF_BODIES_AND_MODELS]
_OF_ITEMS += ["storage-unavailable", "collections-off", "collection-not-found", "item-not-found"]


@router.post(
    "/v1/audio/samples",
    summary="Decode an audio file",
    tags=["embeddings"],
    response_class=Response,
    responses=_ANSWERS | problem_responses(AUDIO_PROBLEMS),
    openapi_extra=audio_body(),
)
@needs_key("embed", metered=True, takes_place=True)
async def decode_audio(
    request: Request, shared: Shared, query: Annotated[SelectionParameters, Query()]
) -> Response:
    """What the service hears of one file, or of a part of it, for what cannot decode it itself.

    The same samples that vectors and labels are made of, rounded to 16 bits.
    """
    return await exchange(request, shared, query, partial(_decoded, request, shared))


@router.get(
    "/v1/collections/{name}/items/{id}/samples",
    summary="Decode the audio of an item",
    tags=["collections"],
    response_class=Response,
    responses=_ANSWERS | problem_responses(_OF_ITEMS),
)
@needs_key("search", metered=True, takes_place=True)
async def decode_item(
    request: Request,
    shared: Shared,
    collected: Collected,
    name: NameInPath,
    id: IdInPath,
    query: Annotated[SelectionParameters, Query()],
) -> Response:
    """What the service hears of a recording, or of a part of it, where the collection keeps audio.

    For players that cannot decode the file itself. It is as long as a request may be at the most:
    of a longer recording ask for a part.
    """
    collection = await collected.find(request.state.caller, name)
    item = await in_thread(collected.store.items.get, collection, id)
    if not item.has_audio:
        raise Problem("item-not-found", f"The audio of the item {id!r} was not kept.")

    async def kept(request: Request, settings: Settings) -> Parse[Body]:
        await request.state.share.take(item.n_bytes, is_upload=True)

        async def parse() -> Body:
            parts = collected.store.items.audio(collection, item)
            upload = Upload(await in_thread(_joined, parts), item.file)
            keep(request.state.share, [upload])
            return Body([upload])

        return parse

    return await exchange_with(kept, request, shared, query, partial(_decoded, request, shared))


async def _decoded(
    request: Request, shared: Context, body: Body, asked: SelectionParameters, timing: Timing
) -> Response:
    if len(body.uploads) > 1:
        reason = "The answer is one recording: send one file."
        raise invalid_parameter(FILE_FIELD, reason, value=len(body.uploads), limit=1)
    prepared = await decode(request, shared, body, timing, selection=asked.selection)
    check_outcomes(body.uploads, prepared)
    (clip,) = prepared
    assert isinstance(clip, Clip)
    with timing.stage("render"):
        return await in_thread(wav_response, clip.samples)


def _joined(parts: Iterator[bytes]) -> bytearray:
    """All parts in one; joined as they come, since a list of them would need twice the memory."""
    whole = bytearray()
    for part in parts:
        whole += part
    return whole
