"""`/v2`: the Open Inference Protocol, for clients of KServe and Triton."""

from collections.abc import Sequence
from importlib.metadata import version as installed
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from models.runtime import Encoder
from service.clips import Embedded
from service.context import Context, Shared
from service.exchange import embed, exchange_with, n_vectors, rendered
from service.formats.answers import all_embedded
from service.formats.json_body import JSON
from service.formats.open_inference import (
    HEADER_LENGTH,
    InferBody,
    InferRequest,
    NoParameters,
    model_metadata,
    output_tensor,
    read_inference,
)
from service.inference.catalogue import Served
from service.openapi import SCHEMAS, problem_responses
from service.problem_types import AUDIO_PROBLEMS
from service.problems import Problem
from service.telemetry.timing import Timing
from service.traffic.access import needs_key, probe
from service.untrusted import printable

router = APIRouter(prefix="/v2", tags=["open inference"])

_MISSING = problem_responses(["model-not-found"], plain=True)
_REFUSALS = problem_responses(AUDIO_PROBLEMS, plain=True)
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": SCHEMAS + InferRequest.__name__}},
            "application/octet-stream": {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": f"JSON of `{HEADER_LENGTH}` bytes, then tensors.",
                }
            },
        },
    }
}


@router.get("", summary="Describe the server")
@needs_key()
async def describe_server() -> dict[str, Any]:
    """Name, version and extensions of the protocol."""
    extensions = ["binary_tensor_data"]
    return {"name": "viola", "version": installed("viola-audio"), "extensions": extensions}


@router.get("/health/live", summary="Is the server alive?")
@probe
async def server_live() -> dict[str, bool]:
    """As `/livez`."""
    return {"live": True}


@router.get(
    "/health/ready",
    summary="Can requests be served?",
    responses={503: {"description": "`/readyz` says why not."}},
)
@probe
async def server_ready(shared: Shared, response: Response) -> dict[str, bool]:
    """As `/readyz`."""
    is_ready = not shared.complaints()
    response.status_code = 200 if is_ready else 503
    return {"ready": is_ready}


@router.get("/models/{model}", summary="Describe a model's tensors", responses=_MISSING)
@needs_key()
async def model_tensors(model: str, shared: Shared) -> dict[str, Any]:
    """Send `audio` alone, or `waveform` with `length`. The version is the space id."""
    return _described(_served(shared, model))


@router.get(
    "/models/{model}/versions/{version}",
    summary="Describe the tensors of a version",
    responses=_MISSING,
)
@needs_key()
async def version_tensors(model: str, version: str, shared: Shared) -> dict[str, Any]:
    """The same if the version is the one that is served."""
    return _described(_served(shared, model, version))


@router.get("/models/{model}/ready", summary="Is a model ready?", responses=_MISSING)
@needs_key()
async def model_ready(model: str, shared: Shared) -> dict[str, Any]:
    """A model that is served is ready."""
    return {"name": _served(shared, model).name, "ready": True}


@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Is a version ready?",
    responses=_MISSING,
)
@needs_key()
async def version_ready(model: str, version: str, shared: Shared) -> dict[str, Any]:
    """The same if the version is the one that is served."""
    return {"name": _served(shared, model, version).name, "ready": True}


@router.post("/models/{model}/infer", summary="Infer", responses=_REFUSALS, openapi_extra=_BODY)
@needs_key("embed", metered=True, takes_place=True)
async def model_infer(model: str, request: Request, shared: Shared) -> Response:
    """`audio` (files: base64, or bytes in binary) or `waveform` and `length` -> `embedding`.

    A recording that cannot be used fails the whole request.
    """
    return await _infer(request, shared, _served(shared, model))


@router.post(
    "/models/{model}/versions/{version}/infer",
    summary="Infer with a version",
    responses=_REFUSALS,
    openapi_extra=_BODY,
)
@needs_key("embed", metered=True, takes_place=True)
async def version_infer(model: str, version: str, request: Request, shared: Shared) -> Response:
    """The same if the version is the one that is served."""
    return await _infer(request, shared, _served(shared, model, version))


def _served(shared: Context, model: str, version: str | None = None) -> Served[Encoder]:
    served = shared.catalogue.model(model)
    if version not in (None, served.space_id):
        detail = (
            f"There is no version {printable(str(version))!r} of {served.name}; "
            f"there is: {served.space_id}."
        )
        raise Problem("model-not-found", detail)
    return served


def _described(served: Served[Encoder]) -> dict[str, Any]:
    return model_metadata(served.name, served.space_id, served.network.card.embed_dim)


async def _infer(request: Request, shared: Context, model: Served[Encoder]) -> Response:
    async def answer(body: InferBody, asked: NoParameters, timing: Timing) -> Response:
        outcomes = await embed(request, shared, model.network, body, None, timing)
        files = all_embedded(outcomes, body.tensor)
        return await rendered(timing, n_vectors(files), _render, model, body, files)

    return await exchange_with(read_inference, request, shared, NoParameters(), answer)


def _render(model: Served[Encoder], body: InferBody, files: Sequence[Embedded]) -> Response:
    tensor, binary = output_tensor([file.embedding for file in files], is_binary=body.is_binary)
    audio_seconds = sum(file.duration_s for file in files)
    document: dict[str, Any] = {
        "model_name": model.name,
        "model_version": model.space_id,
        "parameters": {"space_id": model.space_id, "audio_seconds": audio_seconds},
        "outputs": [tensor],
    }
    if body.id is not None:
        document["id"] = body.id
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not body.is_binary:
        return Response(content, media_type=JSON)
    headers = {HEADER_LENGTH: str(len(content))}
    return Response(content + binary, media_type="application/octet-stream", headers=headers)
