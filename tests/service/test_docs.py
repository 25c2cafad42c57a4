"""The OpenAPI document and the page that shows it.

After a change that is meant run `UPDATE_OPENAPI=1 pytest tests/service/test_docs.py` and read the
difference.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import installation
from service.naming import IN_WORDS
from service.outputs import arrow, npy

SNAPSHOT = Path(__file__).with_name("openapi.json")
PATH = "/v1/audio/embeddings"


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def test_the_openapi_document_is_the_one_agreed_on(document: dict[str, Any]) -> None:
    del document["info"]["version"]
    if os.environ.get("UPDATE_OPENAPI"):
        SNAPSHOT.write_text(json.dumps(document, indent=1) + "\n")
    assert document == json.loads(SNAPSHOT.read_text())


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references
    for reference in references:
        target = document
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]


def test_both_kinds_of_body_are_described(document: dict[str, Any]) -> None:
    content = document["paths"][PATH]["post"]["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    assert form["properties"]["file"]["items"]["format"] == "binary"
    assert set(form["properties"]) == {"file"}  # a form page would fill in the others
    assert content["audio/*"]["schema"]["format"] == "binary"
    assert "application/octet-stream" in content


def test_every_refusal_is_described_with_an_example(document: dict[str, Any]) -> None:
    responses = document["paths"][PATH]["post"]["responses"]
    assert set(responses) == {
        "200",
        "400",
        "401",
        "403",
        "404",
        "408",
        "413",
        "415",
        "422",
        "429",
        "431",
        "500",
        "503",
        "507",
        "504",
    }
    assert set(responses.pop("200")["content"]) == {
        "application/json",
        npy.FORMAT.media_type,
        arrow.FORMAT.media_type,
        "application/x-ndjson",
        "text/event-stream",
    }
    for status, response in responses.items():
        (media_type,) = response["content"]
        assert media_type == "application/problem+json"
        for example in response["content"][media_type]["examples"].values():
            assert str(example["value"]["status"]) == status


def test_the_documentation_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    assert not [path for path in loaded if "://" in path]
    for path in loaded:
        assert client.get(path).status_code == 200


def test_the_licence_of_what_the_page_loads_is_served_with_it(client: httpx.Client) -> None:
    for name in ("LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"):
        assert client.get(f"/web/swagger/{name}").status_code == 200


def test_the_page_lists_what_this_installation_serves(client: httpx.Client) -> None:
    page = client.get("/docs").text
    (spec,) = re.findall(r'"spec": (\{.*\}),$', page, re.MULTILINE)
    document = json.loads(spec)
    given = {p["name"]: p["schema"] for p in document["paths"][PATH]["post"]["parameters"]}
    assert given["model"]["enum"] == ["tiny"]
    assert "WebSocket" in document["paths"]["/v1/audio/stream"]["get"]["summary"]
    assert client.base_url.netloc.decode() in document["info"]["description"]
    assert "security" not in document  # no keys: no locks
    hostile = client.get("/docs", headers={"Host": "a'><script>"}).text
    assert "a'><script>" not in hostile


def test_the_page_shows_locks_where_keys_are_on(document: dict[str, Any]) -> None:
    described = installation.described(
        json.loads(SNAPSHOT.read_text()), models=[], classifiers=[], has_keys=True, address="x"
    )
    assert described["security"] == document["security"]


def test_every_pattern_that_is_asked_for_has_words(document: dict[str, Any]) -> None:
    patterns = set(re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(document)))
    assert {json.loads(pattern) for pattern in patterns} <= IN_WORDS.keys()
    assert patterns
