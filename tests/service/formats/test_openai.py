"""`POST /v1/embeddings`, asked by OpenAI's own client and by hand."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from models.runtime import Encoder
from service.formats.json_body import MAX_NESTED
from service.formats.openai_embeddings import MAX_VALUES, OpenAIList
from tests.service.conftest import EMBED_DIM, Serve, encoded, tone
from tests.service.traffic.test_refusals import refused

URL = "/v1/embeddings"


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def official(client: httpx.Client) -> Iterator[openai.OpenAI]:
    """OpenAI's client, pointed at the service."""
    url = str(client.base_url.join("/v1"))
    with openai.OpenAI(api_key="none", base_url=url, max_retries=0) as official:
        yield official


@pytest.mark.parametrize("encoding_format", [None, "float", "base64"])
def test_the_official_client_gets_the_encoders_vectors(
    official: openai.OpenAI, encoder: Encoder, encoding_format: str | None
) -> None:
    clips = [tone(0.5), tone(1.0, hz=900)]
    asked: dict[str, Any] = {"encoding_format": encoding_format} if encoding_format else {}
    files = [packed(encoded(clip)) for clip in clips]
    answer = official.embeddings.create(model="tiny", input=files, **asked)
    assert (answer.object, answer.model) == ("list", "tiny")
    assert [item.index for item in answer.data] == [0, 1]
    for item, clip in zip(answer.data, clips, strict=True):
        vector = item.embedding
        if encoding_format == "base64":  # who asks for it gets it as it is
            vector = np.frombuffer(base64.b64decode(str(vector)), "<f4").tolist()
        np.testing.assert_allclose(vector, encoder.embed(clip), atol=1e-4)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (150, 150)  # frames of 10 ms
    assert answer.model_extra == {"space_id": "space-of-tiny"}
    assert answer.usage.model_extra == {"audio_seconds": 1.5}


def test_a_parameter_in_the_query_is_refused_not_dropped(client: httpx.Client) -> None:
    asked = {"input": packed(encoded(tone()))}
    document = refused(client.post(f"{URL}?dimensions=4", json=asked), "invalid-parameter")
    assert document["param"] == "dimensions"


@pytest.mark.parametrize("wrap", ["alone", "uri", "part", "parts"])
def test_a_file_may_come_in_each_of_the_shapes(client: httpx.Client, wrap: str) -> None:
    data = packed(encoded(tone(), kind="FLAC"))
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "flac"}}
    shapes: dict[str, Any] = {
        "alone": data,
        "uri": f"data:audio/flac;base64,{data}",
        "part": part,
        "parts": [part, data],
    }
    answer = client.post(URL, json={"model": "tiny", "input": shapes[wrap], "user": "u"})
    assert answer.status_code == 200
    body = answer.json()
    OpenAIList.model_validate(body)
    assert len(body["data"]) == (2 if wrap == "parts" else 1)
    assert len(body["data"][0]["embedding"]) == EMBED_DIM
    assert "infer;dur=" in answer.headers["Server-Timing"]


def test_vectors_are_shortened_to_the_dimensions_asked_for(official: openai.OpenAI) -> None:
    file = packed(encoded(tone()))
    whole = official.embeddings.create(model="tiny", input=file).data[0].embedding
    answer = official.embeddings.create(model="tiny", input=file, dimensions=EMBED_DIM)
    assert answer.data[0].embedding == whole
    short = official.embeddings.create(model="tiny", input=file, dimensions=3).data[0].embedding
    assert short == pytest.approx(np.array(whole[:3]) / np.linalg.norm(whole[:3]))
    with pytest.raises(openai.BadRequestError) as caught:
        official.embeddings.create(model="tiny", input=file, dimensions=EMBED_DIM + 1)
    assert caught.value.param == "dimensions"
    assert f"vectors of {EMBED_DIM} values" in str(caught.value)


def test_the_official_client_reads_what_is_wrong(official: openai.OpenAI) -> None:
    good, bad = packed(encoded(tone())), packed(encoded(tone())[:-1000])
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        official.embeddings.create(model="tiny", input=[good, bad])
    assert (caught.value.code, caught.value.param) == ("truncated", "input[1]")
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as missing:
        official.embeddings.create(model="text-embedding-3-small", input=good)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as text:
        official.embeddings.create(model="tiny", input="The food was delicious.")
    assert "not text" in str(text.value)


def test_a_file_that_is_refused_keeps_its_limit(serve: Serve) -> None:
    with serve(max_duration_s=1.0) as client:
        document = refused(client.post(URL, json={"input": packed(encoded(tone(2.0)))}), "too-long")
    assert (document["limit"], document["observed"], document["unit"]) == (1, 2, "s")
    assert (document["param"], document["file_index"]) == ("input[0]", 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "input is missing"),
        ({"input": None}, "input is missing"),
        ({"input": []}, "input is empty"),
        ({"input": [1, 2, 3]}, "input[0] is a number"),
        ({"input": [[1, 2]]}, "input[0] is an array"),
        ({"input": {"type": "input_audio"}}, "input[0] is an object"),
        ({"input": "UklGR"}, "base64"),
        ({"input": "UklG\nRgAA"}, "line breaks"),
        ({"input": "_-_-"}, "standard alphabet"),
        ({"input": "é"}, "base64"),
        ({"input": "data:audio/wav,abc"}, "without base64"),
        ({"input": "https://example.org/clip.wav"}, "nothing is fetched"),
        ({"input": "UklG", "encoding_format": "hex"}, "encoding_format = hex"),
        ({"input": "UklG", "dimensions": "many"}, "dimensions = many"),
        ({"input": "UklG", "temperature": 1}, "temperature"),
        ({"input": "UklG", "model": 5}, "model = 5"),
    ],
)
def test_what_cannot_be_read_is_a_400_that_says_why(
    client: httpx.Client, body: dict[str, Any], words: str
) -> None:
    assert words in refused(client.post(URL, json=body), "invalid-parameter")["detail"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 5_000])
def test_what_is_no_json_object_is_refused(client: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    refused(client.post(URL, content=content, headers=headers), "bad-request")


@pytest.mark.parametrize(
    ("filler", "limit", "unit"),
    [(b"1,", MAX_VALUES, "values"), (b"[", MAX_NESTED, "arrays and objects")],
)
def test_json_that_would_fill_the_memory_is_refused_unread(
    client: httpx.Client, filler: bytes, limit: int, unit: str
) -> None:
    content = b'{"input":[' + filler * (limit + 1)
    headers = {"Content-Type": "application/json"}
    document = refused(client.post(URL, content=content, headers=headers), "body-too-large")
    assert (document["limit"], document["unit"]) == (limit, unit)


def test_other_bodies_and_larger_ones_are_refused(serve: Serve) -> None:
    file = packed(encoded(tone()))
    with serve(max_body_bytes=50_000, max_files=1) as client:
        document = refused(client.post(URL, content=b"x"), "unsupported-media-type")
        assert document["accepted"] == ["application/json"]
        headers = {"Content-Encoding": "gzip"}
        refused(client.post(URL, json={}, headers=headers), "content-encoding")
        refused(client.post(URL, json={"input": [file, file]}), "body-too-large")
        document = refused(client.post(URL, json={"input": ["", ""]}), "too-many-files")
        assert (document["limit"], document["observed"]) == (1, 2)
