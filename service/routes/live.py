"""`WebSocket /v1/audio/stream`: live PCM -> vectors and labels, every hop."""

from contextlib import suppress

import orjson
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.context import Context
from service.problems import Problem
from service.streams.lines import broken_off, failure
from service.streams.live import CLOSE_NORMAL, CLOSE_PROBLEM, serve_stream
from service.traffic.access import needs_key
from service.traffic.auth import STREAM_PROTOCOL

router = APIRouter()


@router.websocket("/v1/audio/stream")
@needs_key("embed", "classify", metered=True)
async def stream_audio(socket: WebSocket) -> None:
    """Answer every hop of a live stream; what goes wrong is the last message and the close code.

    Raises:
        Problem: before the socket is accepted; it becomes the answer to the handshake.
    """
    shared: Context = socket.app.state.context
    shared.live.check()
    is_spoken = STREAM_PROTOCOL in socket.scope["subprotocols"]
    await socket.accept(subprotocol=STREAM_PROTOCOL if is_spoken else None)
    try:
        await serve_stream(socket, shared)
    except WebSocketDisconnect:
        return
    except Exception as error:
        await _end(socket, broken_off(error))
    else:
        await _close(socket, CLOSE_NORMAL)


async def _end(socket: WebSocket, problem: Problem) -> None:
    socket.state.problem = problem  # for the line in the log
    last = failure(problem, socket.state.request_id)
    with suppress(RuntimeError, WebSocketDisconnect):  # gone meanwhile
        await socket.send_text(orjson.dumps(last).decode())
    await _close(socket, CLOSE_PROBLEM + problem.status_code)


async def _close(socket: WebSocket, code: int) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code)
