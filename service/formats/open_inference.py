"""The Open Inference Protocol (KServe v2): requests -> files, vectors -> answers.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, with Triton's
binary tensor extension. A file comes as an element of `audio`; samples come as rows of `waveform`
and are not decoded. Letters: `B` batch, `S` samples, `D` embedding dim.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.audio.files import File, Upload
from service.formats.json_body import COPIES, parse_object, refuse_query, take_values
from service.parameters import Count, JsonParameters
from service.problems import Problem
from service.settings import Settings
from service.threads import in_thread
from service.untrusted import printable
from service.uploads.base64_audio import read_base64
from service.uploads.body import Body, Parse, in_time, keep, received, refuse_encoding

HEADER_LENGTH = "Inference-Header-Content-Length"
OUTPUT = "embedding"
MAX_VALUES = 1_000_000  # of a body's JSON, a minute of samples; binary tensors take a quarter

INPUTS = {"audio": "BYTES", "waveform": "FP32", "length": "INT64"}
_NUMBERS = {"FP32": "<f4", "INT64": "<i8"}
_EXPECTED = "one input `audio` (BYTES), or `waveform` (FP32) and, if rows are padded, `length`"


class InferInput(JsonParameters):
    """A tensor that comes in, its values in `data` or behind the JSON."""

    model_config = ConfigDict(extra="ignore")

    name: str
    shape: list[Count] = Field(max_length=8)
    datatype: Literal["BYTES", "FP32", "INT64"]
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = Field(
        default=None, description="Of BYTES, base64; without it `parameters.binary_data_size`."
    )


class InferOutput(JsonParameters):
    """A tensor that is asked for."""

    model_config = ConfigDict(extra="ignore")

    name: Literal["embedding"]
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(JsonParameters):
    """A request for inference; members that are not listed are ignored, as the protocol wants."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(default=None, max_length=128)
    inputs: list[InferInput] = Field(min_length=1, max_length=len(INPUTS))
    outputs: list[InferOutput] = Field(default=[], max_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class InferBody(Body):
    """The files of a request, and how the answer is to look."""

    tensor: str = "audio"
    id: str | None = None
    is_binary: bool = False


class NoParameters(BaseModel):
    """Nothing stands in the query."""


async def read_inference(request: Request, settings: Settings) -> Parse[InferBody]:
    """Receive a request; its files, or its samples, are still to be parsed.

    Raises:
        Problem: for a body that is malformed, too large or too slow, or a parameter in the query.
    """
    refuse_query(request)
    refuse_encoding(request)
    header, share = request.headers.get(HEADER_LENGTH), request.state.share
    async with in_time(settings):
        body = await received(request, COPIES if header is None else 2)

    async def parse() -> InferBody:
        document = body if header is None else body[: _json_length(body, header)]
        await take_values(document, MAX_VALUES, share)
        parsed = await in_thread(_parse, body, document, settings.max_files)
        if header is None:  # with binary tensors the body stays, and with it all that was taken
            keep(share, parsed.uploads)
        return parsed

    return parse


def _parse(body: bytearray, document: bytearray, max_files: int) -> InferBody:
    asked, n_json = _validated(parse_object(document)), len(document)
    document.clear()  # the strings are there
    for given in asked.inputs:
        _check_shape(given, max_files)
    tensors = _tensors(asked, memoryview(body)[n_json:])
    name = next(iter(tensors)) if len(tensors) == 1 else "waveform"
    if set(tensors) not in ({"audio"}, {"waveform"}, {"waveform", "length"}):
        raise Problem("bad-request", f"The inputs are {', '.join(tensors)}; expected {_EXPECTED}.")
    uploads = _files(tensors[name]) if name == "audio" else _waveforms(tensors)
    return InferBody(uploads, tensor=name, id=asked.id, is_binary=_wants_binary(asked))


def _check_shape(given: InferInput, max_files: int) -> None:
    """Refuse a shape before anything is made of its size: a row takes memory, also an empty one."""
    if not given.shape or min(given.shape) < 0:
        raise _invalid(given.name, f"has the shape {_shown(given.shape)}")
    if given.name == "waveform" and len(given.shape) != 2:
        shown = _shown(given.shape)
        raise _invalid("waveform", f"has the shape {shown}; expected [batch, samples]")
    if given.shape[0] > max_files:
        raise Problem(
            "too-many-files",
            f"{given.name} holds {_shown(given.shape[:1])} recordings; at most {max_files} are "
            "accepted.",
            limit=max_files,
            observed=float(given.shape[0]),
            unit="files",
            param=given.name,
        )


def _shown(shape: list[int]) -> str:
    return printable(", ".join(map(str, shape)))


def _json_length(body: bytearray, header: str | None) -> int:
    """Where the JSON ends and binary tensors begin."""
    if header is None:
        return len(body)
    if not (header.isascii() and header.isdigit() and len(header) < 12):
        raise Problem("bad-request", f"{HEADER_LENGTH} is {printable(header)!r}: not a length.")
    if int(header) > len(body):
        detail = f"{HEADER_LENGTH} is {int(header)}, but the body has {len(body)} bytes."
        raise Problem("bad-request", detail, limit=len(body), observed=int(header), unit="bytes")
    return int(header)


def _validated(document: dict[str, Any]) -> InferRequest:
    try:
        return InferRequest.model_validate(document)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _wants_binary(asked: InferRequest) -> bool:
    chosen = asked.outputs[0].parameters if asked.outputs else {}
    return bool(chosen.get("binary_data", asked.parameters.get("binary_data_output", False)))


# Tensors


@dataclass(frozen=True)
class _Tensor:
    """A tensor that came in: its shape, and its values in one row."""

    shape: list[int]
    values: NDArray[Any] | Sequence[File]


def _tensors(asked: InferRequest, binary: memoryview) -> dict[str, _Tensor]:
    """The inputs by name; those in binary stand one behind the other in their order."""
    tensors: dict[str, _Tensor] = {}
    values: NDArray[Any] | Sequence[File]
    for given in asked.inputs:
        if given.datatype != INPUTS.get(given.name) or given.name in tensors:
            shown = printable(given.name)
            detail = f"The input {shown!r} of {given.datatype} is not taken; expected {_EXPECTED}."
            raise Problem("bad-request", detail, param=shown)
        size = given.parameters.get("binary_data_size")
        if size is None:
            values = _from_json(given)
        else:
            raw, binary = _cut(binary, size, given.name)
            values = _from_bytes(raw, given)
        if len(values) != math.prod(given.shape):
            shape = _shown(given.shape)
            raise _invalid(given.name, f"holds {len(values)} values in the shape [{shape}]")
        tensors[given.name] = _Tensor(given.shape, values)
    if len(binary):
        detail = f"{len(binary)} bytes follow the last tensor; check each `binary_data_size`."
        raise Problem("bad-request", detail)
    return tensors


def _cut(binary: memoryview, size: Any, name: str) -> tuple[memoryview, memoryview]:
    if not isinstance(size, int) or not 0 <= size <= len(binary):
        raise _invalid(
            name, f"has the binary_data_size {printable(str(size))} of {len(binary)} bytes left"
        )
    return binary[:size], binary[size:]


def _from_json(given: InferInput) -> NDArray[Any] | list[bytes]:
    if given.data is None:
        raise _invalid(given.name, "has neither `data` nor `parameters.binary_data_size`")
    if given.datatype == "BYTES":
        if not all(isinstance(item, str) for item in given.data):
            raise _invalid(given.name, "holds something else than strings of base64")
        if len(given.data) != math.prod(given.shape):
            raise _invalid(given.name, f"holds {len(given.data)} values in another shape")
        return [read_base64(item, f"{given.name}[{i}]") for i, item in enumerate(given.data)]
    try:
        with np.errstate(over="ignore"):  # infinity is refused with the recording
            return np.fromiter(_numbers(given.data, given), _NUMBERS[given.datatype])
    except (ValueError, TypeError, OverflowError):
        raise _invalid(given.name, f"holds something else than {given.datatype}") from None


def _numbers(values: list[Any], given: InferInput, depth: int = 0) -> Iterator[float]:
    """The numbers of a list, or of lists in the tensor's shape; no text and no truth values.

    Raises:
        TypeError: there is something else.
    """
    is_nested = bool(values) and isinstance(values[0], list)
    if (depth or is_nested) and len(values) != dict(enumerate(given.shape)).get(depth):
        raise TypeError
    wanted = (list,) if is_nested else (int,) if given.datatype == "INT64" else (int, float)
    for value in values:
        if type(value) not in wanted:
            raise TypeError
        if is_nested:
            yield from _numbers(value, given, depth + 1)
        else:
            yield value


def _from_bytes(raw: memoryview, given: InferInput) -> NDArray[Any] | list[memoryview]:
    if given.datatype == "BYTES":
        return _elements(raw, given.name, math.prod(given.shape))
    dtype = np.dtype(_NUMBERS[given.datatype])
    if len(raw) % dtype.itemsize:
        raise _invalid(given.name, f"ends within a value, after {len(raw)} bytes")
    return np.frombuffer(raw, dtype)


def _elements(raw: memoryview, name: str, most: int) -> list[memoryview]:
    """Each element is its length, four bytes little-endian, and its bytes."""
    elements: list[memoryview] = []
    while len(raw):
        size = int.from_bytes(raw[:4], "little")
        if len(elements) == most:
            raise _invalid(name, f"holds more than the {most} elements of its shape")
        if len(raw) < 4 + size:
            raise _invalid(name, f"ends within element {len(elements)}")
        elements.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return elements


def _invalid(name: str, what: str) -> Problem:
    return Problem("bad-request", f"The input {name} {what}.", param=name)


# Recordings


def _files(tensor: _Tensor) -> list[Upload]:
    if not len(tensor.values):
        raise _invalid("audio", "holds no file")
    return [Upload(element) for element in tensor.values]


def _waveforms(tensors: Mapping[str, _Tensor]) -> list[Upload]:
    """The rows (S,) of `waveform` (B, S), each as long as `length` (B,) says."""
    waveform = tensors["waveform"]
    n_rows, n_samples = waveform.shape
    if n_rows == 0:
        raise _invalid("waveform", f"has the shape {waveform.shape}; expected [batch, samples]")
    rows = np.asarray(waveform.values).reshape(n_rows, n_samples)
    lengths = [n_samples] * n_rows
    if "length" in tensors:
        if tensors["length"].shape != [n_rows]:
            raise _invalid("length", f"has the shape {tensors['length'].shape}, not [{n_rows}]")
        lengths = np.asarray(tensors["length"].values).tolist()
        if not all(0 <= length <= n_samples for length in lengths):
            raise _invalid("length", f"holds a value outside 0 to {n_samples}")
    return [Upload(row[:length]) for row, length in zip(rows, lengths, strict=True)]


# Answers


def model_metadata(name: str, version: str, embed_dim: int) -> dict[str, Any]:
    """What a model takes and gives; `audio` alone, or `waveform` and `length`."""
    shapes = {"audio": [-1], "waveform": [-1, -1], "length": [-1]}
    return {
        "name": name,
        "versions": [version],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": tensor, "datatype": datatype, "shape": shapes[tensor]}
            for tensor, datatype in INPUTS.items()
        ],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, embed_dim]}],
    }


def output_tensor(
    rows: Sequence[NDArray[np.float32]], *, is_binary: bool
) -> tuple[dict[str, Any], bytes]:
    """Vectors (B, D) as the answer's tensor, and what follows the JSON."""
    matrix = np.stack(rows).astype("<f4")
    tensor = {"name": OUTPUT, "datatype": "FP32", "shape": list(matrix.shape)}
    if not is_binary:
        return tensor | {"data": matrix.ravel()}, b""
    raw = matrix.tobytes()
    return tensor | {"parameters": {"binary_data_size": len(raw)}}, raw
