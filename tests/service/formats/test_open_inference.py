"""`/v2`: the Open Inference Protocol, by hand; Triton's client where it is installed."""

import asyncio
import base64
import json
import struct
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.runtime import Encoder
from service.formats import open_inference
from service.formats.json_body import take_values
from service.formats.open_inference import HEADER_LENGTH
from service.problems import Problem
from service.traffic.budget import Budget
from tests.service.conftest import EMBED_DIM, Serve, encoded, tone, write_model

INFER = "/v2/models/tiny/infer"
SPACE = "space-of-tiny"


def audio_input(*files: bytes) -> dict[str, Any]:
    data = [base64.b64encode(file).decode() for file in files]
    return {"name": "audio", "shape": [len(files)], "datatype": "BYTES", "data": data}


def elements(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def binary(document: dict[str, Any], *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    """A body and its header, as Triton's client makes them."""
    head = json.dumps(document).encode()
    return head + b"".join(tensors), {HEADER_LENGTH: str(len(head))}


def embedding(answer: httpx.Response) -> NDArray[np.float32]:
    """The vectors of an answer, in JSON or behind it."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(HEADER_LENGTH, len(answer.content)))
    document = json.loads(answer.content[:length])
    assert (document["model_name"], document["model_version"]) == ("tiny", SPACE)
    assert document["parameters"]["space_id"] == SPACE
    (tensor,) = document["outputs"]
    assert (tensor["name"], tensor["datatype"]) == ("embedding", "FP32")
    if "data" in tensor:
        return np.float32(tensor["data"]).reshape(tensor["shape"])
    assert tensor["parameters"]["binary_data_size"] == len(answer.content) - length
    return np.frombuffer(answer.content[length:], "<f4").reshape(tensor["shape"])


def refused(answer: httpx.Response, status: int) -> str:
    """What the answer says is wrong; a sentence, where other routes have an object."""
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert isinstance(error, str)
    return error


def test_the_server_and_its_health(client: httpx.Client) -> None:
    server = client.get("/v2").json()
    assert server["name"] == "viola"
    assert server["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_a_server_without_a_usable_model_is_not_ready(serve: Serve, tmp_path: Any) -> None:
    broken = write_model(tmp_path / "tiny.onnx", golden_scale=2)
    with serve(models=broken) as client:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        refused(client.get("/v2/models/tiny/ready"), 404)


@pytest.mark.parametrize("path", ["/v2/models/tiny", f"/v2/models/tiny/versions/{SPACE}"])
def test_a_model_tells_its_tensors(client: httpx.Client, path: str) -> None:
    model = client.get(path).json()
    assert (model["name"], model["versions"]) == ("tiny", [SPACE])
    assert {i["name"]: i["datatype"] for i in model["inputs"]} == {
        "audio": "BYTES",
        "waveform": "FP32",
        "length": "INT64",
    }
    (output,) = model["outputs"]
    assert (output["name"], output["shape"]) == ("embedding", [-1, EMBED_DIM])
    assert client.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}


def test_other_models_versions_and_paths_are_not_found(client: httpx.Client) -> None:
    assert "huge" in refused(client.get("/v2/models/huge"), 404)
    assert SPACE in refused(client.get("/v2/models/tiny/versions/1"), 404)
    refused(client.post("/v2/models/huge/infer", json={"inputs": [audio_input(b"")]}), 404)
    refused(client.get("/v2/nowhere"), 404)
    refused(client.get(INFER), 405)


def test_a_parameter_in_the_query_is_refused_not_dropped(client: httpx.Client) -> None:
    asked = {"inputs": [audio_input(encoded(tone()))]}
    answer = client.post(f"{INFER}?dimensions=4", json=asked)
    assert "dimensions stands in the query" in refused(answer, 400)


def test_files_in_base64_get_their_vectors(client: httpx.Client, encoder: Encoder) -> None:
    clips = [tone(0.5), tone(1.0, hz=900)]
    files = [encoded(clip) for clip in clips]
    answer = client.post(INFER, json={"id": "7", "inputs": [audio_input(*files)]})
    expected = np.stack([encoder.embed(clip) for clip in clips])
    np.testing.assert_allclose(embedding(answer), expected, atol=1e-4)
    assert answer.json()["id"] == "7"
    assert answer.json()["parameters"]["audio_seconds"] == 1.5
    assert "infer;dur=" in answer.headers["Server-Timing"]
    versioned = f"/v2/models/tiny/versions/{SPACE}/infer"
    again = client.post(versioned, json={"inputs": [audio_input(*files)]})
    np.testing.assert_array_equal(embedding(again), embedding(answer))


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "embedding", "parameters": {"binary_data": True}}]},
    ],
)
def test_files_and_vectors_may_be_binary(client: httpx.Client, asked: dict[str, Any]) -> None:
    files = [encoded(tone(0.5)), encoded(tone(0.7), kind="FLAC")]
    raw = elements(*files)
    tensor = {"name": "audio", "shape": [2], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    content, headers = binary({"inputs": [tensor]} | asked, raw)
    answer = client.post(INFER, content=content, headers=headers)
    assert HEADER_LENGTH in answer.headers
    in_json = client.post(INFER, json={"inputs": [audio_input(*files)]})
    np.testing.assert_array_equal(embedding(answer), embedding(in_json))


@pytest.mark.parametrize("is_binary", [False, True])
def test_samples_get_the_vectors_that_the_encoder_computes(
    client: httpx.Client, encoder: Encoder, is_binary: bool
) -> None:
    waveform = np.stack([tone(0.5), tone(0.5, hz=900)]).astype("<f4")
    length = np.array([8_000, 3_000], "<i8")
    inputs: list[dict[str, Any]] = [
        {"name": "length", "shape": [2], "datatype": "INT64"},
        {"name": "waveform", "shape": [2, 8_000], "datatype": "FP32"},
    ]
    if is_binary:
        for tensor, array in zip(inputs, (length, waveform), strict=True):
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        content, headers = binary({"inputs": inputs}, length.tobytes(), waveform.tobytes())
        answer = client.post(INFER, content=content, headers=headers)
    else:
        inputs[0]["data"], inputs[1]["data"] = length.tolist(), waveform.tolist()
        answer = client.post(INFER, json={"inputs": inputs})
    expected = [encoder.embed(row[:n]) for row, n in zip(waveform, length, strict=True)]
    np.testing.assert_allclose(embedding(answer), expected, atol=1e-6)


def waveform_input(data: Any, shape: list[int]) -> dict[str, Any]:
    return {"name": "waveform", "shape": shape, "datatype": "FP32", "data": data}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([audio_input(b"")], "audio[0]: "),
        ([audio_input(encoded(tone()), b"GIF89a")], "audio[1]: "),
        ([waveform_input([[0.0] * 100], [1, 100])], "waveform[0]: "),
        ([waveform_input([[1e39] * 800], [1, 800])], "waveform[0]: "),
    ],
)
def test_a_recording_that_cannot_be_used_fails_the_request_by_its_place(
    client: httpx.Client, inputs: list[dict[str, Any]], words: str
) -> None:
    answer = client.post(INFER, json={"inputs": inputs})
    assert answer.status_code in (415, 422)
    assert refused(answer, answer.status_code).startswith(words)


LENGTH = {"name": "length", "shape": [1], "datatype": "INT64", "data": [9]}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"inputs": []},
        {"inputs": [{"name": "audio"}]},
        {"inputs": [audio_input(b"x") | {"datatype": "FP32"}]},
        {"inputs": [audio_input(b"x") | {"shape": [2]}]},
        {"inputs": [audio_input(b"x") | {"shape": [-1, -1]}]},
        {"inputs": [audio_input()]},
        {"inputs": [audio_input(b"x"), audio_input(b"x")]},
        {"inputs": [audio_input(b"x"), waveform_input([0.0], [1, 1])]},
        {"inputs": [audio_input(b"x") | {"name": "mel"}]},
        {"inputs": [audio_input(b"x") | {"data": ["?"]}]},
        {"inputs": [audio_input(b"x") | {"data": [7]}]},
        {"inputs": [audio_input(b"x") | {"data": None}]},
        {"inputs": [LENGTH]},
        {"inputs": [waveform_input([0.0], [1])]},
        {"inputs": [waveform_input([0.0] * 800, [800])]},  # samples without a batch: no 800 files
        {"inputs": [waveform_input([], [0, 5])]},
        {"inputs": [waveform_input([[0.0], [0.0, 1.0]], [1, 3])]},
        {"inputs": [waveform_input(["x"], [1, 1])]},
        {"inputs": [waveform_input([0.0] * 5, [1, 5]), LENGTH]},
        {"inputs": [waveform_input([0.0] * 5, [1, 5]), LENGTH | {"shape": [1, 1]}]},
        {"inputs": [audio_input(b"x")], "outputs": [{"name": "frames"}]},
        {"inputs": [audio_input(b"x")], "id": "x" * 200},
    ],
)
def test_what_is_not_in_the_protocol_is_a_400(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    assert len(refused(client.post(INFER, json=document), 400)) < 600


@pytest.mark.parametrize(
    ("size", "tail", "length"),
    [
        (4, b"", None),
        (-1, b"abcd", None),
        ("4", b"abcd", None),
        (3, b"abc", None),
        (8, b"\xff\0\0\0abcd", None),
        (4, b"\0\0\0\0rest", None),
        (4, b"abcd", "9999999"),
        (4, b"abcd", "-1"),
        (4, b"abcd", "x"),
        (4_000_000, bytes(4_000_000), None),
    ],
)
def test_binary_tensors_that_do_not_add_up_are_a_400(
    client: httpx.Client, size: Any, tail: bytes, length: str | None
) -> None:
    tensor = {"name": "audio", "shape": [1], "datatype": "BYTES"}
    content, headers = binary(
        {"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}, tail
    )
    headers = {HEADER_LENGTH: length} if length else headers
    refused(client.post(INFER, content=content, headers=headers), 400)


def test_limits_hold_here_too(serve: Serve) -> None:
    with serve(max_files=1, max_body_bytes=100_000, max_duration_s=0.5) as client:
        two = client.post(INFER, json={"inputs": [audio_input(b"x", b"y")]})
        assert "at most 1" in refused(two, 413)
        assert "bytes" in refused(client.post(INFER, content=bytes(200_000)), 413)
        long = client.post(INFER, json={"inputs": [waveform_input([0] * 9_000, [1, 9_000])]})
        assert "0.5 s" in refused(long, 413)
        refused(client.post(INFER, json={}, headers={"Content-Encoding": "gzip"}), 415)


@pytest.mark.parametrize("in_binary", [False, True])
@pytest.mark.parametrize("out_binary", [None, False, True])
def test_tritons_own_client_gets_the_vectors(
    client: httpx.Client, encoder: Encoder, in_binary: bool, out_binary: bool | None
) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    clips = [tone(0.5), tone(0.8, hz=900)]
    files = [encoded(clip) for clip in clips]
    raw = files if in_binary else [base64.b64encode(file) for file in files]
    tensor = triton.InferInput("audio", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(raw, object), binary_data=in_binary)
    asked = out_binary is not None and [
        triton.InferRequestedOutput("embedding", binary_data=out_binary)
    ]
    with triton.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}") as server:
        assert server.is_server_live()
        assert server.is_server_ready()
        assert server.is_model_ready("tiny")
        assert server.get_server_metadata()["name"] == "viola"
        assert server.get_model_metadata("tiny", SPACE)["versions"] == [SPACE]
        answer = server.infer("tiny", [tensor], outputs=asked or None, request_id="7")
    found = answer.as_numpy("embedding")
    np.testing.assert_allclose(found, [encoder.embed(clip) for clip in clips], atol=1e-4)
    assert answer.get_response()["id"] == "7"


def test_tritons_own_client_sends_samples_and_reads_what_is_wrong(
    client: httpx.Client, encoder: Encoder
) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    waveform = np.stack([tone(0.5), tone(0.5, hz=900)])
    length = np.array([8_000, 3_000])
    inputs = [
        triton.InferInput("waveform", [2, 8_000], "FP32").set_data_from_numpy(waveform),
        triton.InferInput("length", [2], "INT64").set_data_from_numpy(length),
    ]
    with triton.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}") as server:
        found = server.infer("tiny", inputs).as_numpy("embedding")
        expected = [encoder.embed(row[:n]) for row, n in zip(waveform, length, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        inputs[1].set_data_from_numpy(np.array([8_000, 9_000]))
        with pytest.raises(Exception, match="length holds a value outside 0 to 8000"):
            server.infer("tiny", inputs)
        with pytest.raises(Exception, match="no model 'huge'"):
            server.infer("huge", inputs)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["audio", "waveform", "length", "mel"]),
        "shape": st.lists(st.integers(-2, 4) | st.integers(), max_size=3) | VALUES,
        "datatype": st.sampled_from(["BYTES", "FP32", "INT64", "FP16"]),
    },
    optional={
        "data": VALUES,
        "parameters": st.dictionaries(st.just("binary_data_size"), VALUES) | VALUES,
    },
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSORS, max_size=3) | VALUES},
        optional={"outputs": VALUES, "parameters": VALUES, "id": VALUES},
    ),
    st.binary(max_size=32),
)
@settings(max_examples=400, deadline=None)
def test_no_request_is_read_as_anything_but_files_or_a_refusal(
    document: dict[str, Any], tail: bytes
) -> None:
    content, headers = binary(document, tail)
    with suppress(Problem, RequestValidationError):
        whole = bytearray(content)
        head = whole[: open_inference._json_length(whole, headers[HEADER_LENGTH])]
        asyncio.run(take_values(head, open_inference.MAX_VALUES, Budget(1 << 24).share()))
        body = open_inference._parse(whole, head, 16)
        assert 0 < len(body.uploads) <= 16
        kinds = (bytes, memoryview, np.ndarray)
        assert all(isinstance(upload.data, kinds) for upload in body.uploads)
