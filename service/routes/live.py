"""`WebSocket /v1/audio/stream`: live PCM -> vectors and labels, every hop."""

from contextlib import suppress
from time import perf_counter

import orjson
import structlog
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.context import Context
from service.streams.lines import failure
from service.streams.live import CLOSE_NORMAL, CLOSE_PROBLEM, converse
from service.traffic.access import needs_key
from service.traffic.middleware import request_id_of

router = APIRouter()

log = structlog.get_logger()


@router.websocket("/v1/audio/stream")
@needs_key("embed", "classify", metered=True)
async def stream_audio(socket: WebSocket) -> None:
    """Answer every hop of a live stream; what goes wrong is the last message and the close code."""
    shared: Context = socket.app.state.context
    request_id, started = request_id_of(socket.scope), perf_counter()
    code = CLOSE_NORMAL
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        await socket.accept(headers=[(b"x-request-id", request_id.encode())])
        try:
            with shared.streams.slot():
                await converse(socket, shared)
        except WebSocketDisconnect as gone:
            code = gone.code
        except Exception as error:
            last = failure(error, request_id)
            code = CLOSE_PROBLEM + last["error"]["status"]
            with suppress(RuntimeError, WebSocketDisconnect):  # gone meanwhile
                await socket.send_text(orjson.dumps(last).decode())
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(code)
        ms = round((perf_counter() - started) * 1000, 1)
        log.info("stream", route="/v1/audio/stream", code=code, ms=ms)
