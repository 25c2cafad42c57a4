"""Every number of every request: finite, bounded, and what it says it is; null is not given."""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.streams.live import LiveConfig
from tests.service.conftest import Serve, encoded, tone
from tests.service.streams.test_live import address
from tests.service.traffic.test_refusals import refused

WAV = encoded(tone(0.5))
AUDIO = {"Content-Type": "audio/wav"}
TEXTS = ["nan", "inf", "-inf", "1e308", "-1e308", "1e309", "-1", "0", "-0.0", "1e-320", "1" * 400]
TEXTS += ["1" * 5000, str(2**31), str(2**63), str(-(2**63) - 1), "0x10", "1,5", "", " ", "true"]
TEXTS += ["null", "\u0661", "1e5"]
VALUES: list[Any] = [-1, 0, 1, 2**31, 2**63, 2**64, 1e308, -1e308, 0.5, 1e-320, True, "1", [1], {}]
VALUES += [None]
HUGE = "1" * 5000  # more digits than Python turns into a number


def numbers(schema: Any) -> bool:
    return '"type": "number"' in json.dumps(schema) or '"type": "integer"' in json.dumps(schema)


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def parameters(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each parameter of a query, a path or a header that is a number, with its operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                if numbers(parameter["schema"]):
                    yield method, path, parameter


def test_every_number_that_is_documented_has_bounds(document: dict[str, Any]) -> None:
    found = [parameter for _, _, parameter in parameters(document)]
    assert {"window_s", "hop_s", "top_k", "threshold"} <= {p["name"] for p in found}
    for parameter in found:
        for kind in parameter["schema"].get("anyOf", [parameter["schema"]]):
            if kind.get("type") in ("number", "integer"):
                assert {"maximum", "exclusiveMaximum"} & set(kind), parameter
                assert {"minimum", "exclusiveMinimum"} & set(kind), parameter


def test_no_number_in_a_query_or_a_form_breaks_the_service(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    for method, path, parameter in parameters(document):
        name = parameter["name"]
        for text in TEXTS:
            asked = {name: text} | ({"window_s": "0.2"} if name == "hop_s" else {})
            kinds: list[dict[str, Any]] = [{"params": asked, "content": WAV, "headers": AUDIO}]
            if method == "post" and len(text) < 4000:
                kinds.append({"files": {"file": ("a.wav", WAV)}, "data": asked})
                kinds.append({"params": asked | {"stream": "true"}, "content": WAV})
            for kind in kinds:
                answer = client.request(method, path, **kind)
                assert answer.status_code < 500, (method, path, asked, answer.text)
                if "object" in answer.text:
                    assert "NaN" not in answer.text


@pytest.fixture(scope="module")
def keeping(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """With collections, whose routes are the only ones with numbers in paths and headers."""
    with serve(data=tmp_path_factory.mktemp("data")) as client:
        yield client


@pytest.mark.parametrize("text", ["5_0", "+5", " 5", "5 ", "\u0665"])
def test_a_number_is_plain_digits_wherever_it_stands(
    keeping: httpx.Client, document: dict[str, Any], text: str
) -> None:
    found = list(parameters(document))
    assert {parameter["in"] for _, _, parameter in found} == {"query", "path", "header"}
    for method, path, parameter in found:
        place, name = parameter["in"], parameter["name"]
        others = {"name": "sounds", "id": "0" * 32, "model": "tiny"}
        asked: dict[str, Any] = {"headers": AUDIO, "content": WAV if method == "post" else None}
        if place == "path":
            others |= {name: quote(text)}
        elif place == "query":
            asked["params"] = {name: text}
        elif text.isascii() and text == text.strip():  # blanks around a header are not part of it
            asked["headers"] = {name: text}
        else:
            continue
        answer = keeping.request(method, path.format_map(others), **asked)
        told = refused(answer, "invalid-parameter")["invalid_params"]
        assert name.lower().replace("-", "_") in [one["name"].replace("-", "_") for one in told]


def test_a_number_in_a_form_is_plain_digits_too(client: httpx.Client) -> None:
    form: dict[str, Any] = {"files": {"file": ("a.wav", WAV)}, "data": {"window_s": "1_0"}}
    answer = client.post("/v1/audio/embeddings", **form)
    assert refused(answer, "invalid-parameter")["param"] == "window_s"


@pytest.mark.parametrize("path", ["embeddings", "inspect", "analyze", "classifications"])
@pytest.mark.parametrize("text", ["nan", "inf", "1e308", "-1", "0", "86401"])
def test_a_window_of_no_sensible_length_is_refused_with_its_bound(
    client: httpx.Client, path: str, text: str
) -> None:
    answer = client.post(f"/v1/audio/{path}", params={"window_s": text}, content=WAV, headers=AUDIO)
    document = refused(answer, "invalid-parameter")
    assert document["param"] == "window_s"
    assert document.get("limit") in (0, 86_400, None)


def replaced(document: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """The document with one of its values replaced, and where it stood."""
    if isinstance(document, dict):
        items: Any = document.items()
    elif isinstance(document, list):
        items = list(enumerate(document))[:2]  # the others are like them
    else:
        return
    for key, part in items:
        copy = document.copy()
        copy[key] = value
        yield f".{key}" if isinstance(key, str) else f"[{key}]", copy
        for path, changed in replaced(part, value):
            copy = document.copy()
            copy[key] = changed
            yield (f".{key}" if isinstance(key, str) else f"[{key}]") + path, copy


INFER = {
    "id": "x",
    "parameters": {"binary_data_output": False},
    "inputs": [
        {"name": "waveform", "shape": [1, 900], "datatype": "FP32", "data": [0.1] * 900},
        {"name": "length", "shape": [1], "datatype": "INT64", "data": [900], "parameters": {}},
    ],
    "outputs": [{"name": "embedding", "parameters": {"binary_data": False}}],
}
OPENAI = {
    "input": [base64.b64encode(WAV).decode()],
    "model": "tiny",
    "encoding_format": "float",
    "dimensions": 4,
    "user": "me",
}
BODIES = {"/v2/models/tiny/infer": INFER, "/v1/embeddings": OPENAI}


@pytest.mark.parametrize("path", list(BODIES))
def test_no_value_in_json_breaks_the_service(client: httpx.Client, path: str) -> None:
    json_type = {"Content-Type": "application/json"}
    assert client.post(path, json=BODIES[path]).status_code == 200
    for value in [*VALUES, "HUGE"]:
        for place, body in replaced(BODIES[path], value):
            text = json.dumps(body).replace('"HUGE"', HUGE).encode()
            answer = client.post(path, content=text, headers=json_type)
            assert answer.status_code < 500, (path, place, value, answer.text)


@pytest.mark.parametrize("path", list(BODIES))
def test_null_is_as_good_as_not_given(client: httpx.Client, path: str) -> None:
    body = {name: None for name in BODIES[path]} | {
        name: BODIES[path][name] for name in ("inputs", "input") if name in BODIES[path]
    }
    if "inputs" in body:
        body["inputs"] = [tensor | {"parameters": None} for tensor in INFER["inputs"]]  # type: ignore[operator]
    assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("dimensions", "4"), ("dimensions", 4.0), ("dimensions", True), ("user", 1), ("model", 1)],
)
def test_a_value_of_another_type_is_not_turned_into_the_right_one(
    client: httpx.Client, name: str, value: Any
) -> None:
    document = refused(
        client.post("/v1/embeddings", json=OPENAI | {name: value}), "invalid-parameter"
    )
    assert document["param"] == name


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("inputs", 0, "shape", 1), "900"),
        (("inputs", 0, "shape", 1), True),
        (("inputs", 0, "shape", 1), 900.5),
        (("inputs", 0, "shape", 1), -1),
        (("inputs", 0, "shape", 1), 2**62),
        (("inputs", 1, "datatype"), "INT8"),
        (("outputs", 0, "name"), "other"),
        (("inputs", 1, "parameters"), 5),
    ],
)
def test_a_refusal_names_the_whole_path_of_what_it_refuses(
    client: httpx.Client, where: tuple[str | int, ...], value: Any
) -> None:
    body = json.loads(json.dumps(INFER))
    parent = body
    for step in where[:-1]:
        parent = parent[step]
    parent[where[-1]] = value
    document = client.post("/v2/models/tiny/infer", json=body).json()
    name = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in where).removeprefix(".")
    assert document["type"] == "/problems/invalid-parameter"
    assert document["param"] == document["invalid_params"][0]["name"] == name
    assert name in document["detail"]


def test_what_is_missing_is_called_missing(client: httpx.Client) -> None:
    body = {"inputs": [{"name": "audio", "shape": [1], "data": ["x"]}]}
    document = client.post("/v2/models/tiny/infer", json=body).json()
    assert document["detail"] == "inputs[0].datatype is missing."
    assert document["invalid_params"][0]["value"] is None


def test_a_refusal_in_our_words_stands_as_it_is(client: httpx.Client) -> None:
    asked = {"start_s": 3, "end_s": 1}
    document = client.post("/v1/audio/embeddings", params=asked, content=b"").json()
    assert document["detail"] == "end_s = 1 is not accepted: it must be more than start_s = 3."


def test_no_value_in_a_live_configuration_breaks_the_service(client: httpx.Client) -> None:
    config = {"sample_rate": 16_000, "window_s": 1.0, "hop_s": 0.5, "top_k": 3}
    assert {name for name in config} <= set(LiveConfig.model_fields)
    for name in config:
        for value in [*VALUES, "HUGE", "NaN", "Infinity"]:
            text = json.dumps(config | {name: value}).replace('"HUGE"', HUGE)
            text = text.replace('"NaN"', "NaN").replace('"Infinity"', "Infinity")
            with connect(address(client)) as line:
                line.send(text)
                with suppress(ConnectionClosed):
                    line.send(json.dumps({"end": True}))
                try:
                    messages = [json.loads(line.recv(timeout=10)) for _ in range(3)]
                except ConnectionClosed:
                    messages = []
                assert line.close_code != 4500, (name, value, messages)


def test_null_in_a_live_configuration_is_the_default() -> None:
    given = dict.fromkeys(LiveConfig.model_fields) | {"sample_rate": 8_000}
    config = LiveConfig.model_validate_json(json.dumps(given))
    assert config == LiveConfig(sample_rate=8_000)
