import io
import struct
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import numpy as np
import pytest

from models.limits import AudioError, Reason
from service.errors import as_problem
from service.exceptions import Reason as ServiceReason
from service.exceptions import ServiceError
from service.problem_types import PROBLEM_TYPES
from service.schemas import ProblemDocument
from tests.service.conftest import Serve, encoded, tone

URL = "/v1/audio/embeddings"
WAV = {"Content-Type": "audio/wav"}


def refused(answer: httpx.Response, slug: str) -> dict[str, Any]:
    """The problem document of an answer that has to be this one."""
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"/problems/{slug}", document
    ProblemDocument.model_validate(document)
    kind = PROBLEM_TYPES[slug]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.status_code == document["status"] == kind.status
    assert document["title"] == kind.title
    assert document["instance"] == f"urn:viola:request:{answer.headers['X-Request-ID']}"
    twin = document["error"]
    assert twin["message"] == document["detail"]
    assert twin["code"] == slug.replace("-", "_")
    assert twin["type"] == ("server_error" if kind.status >= 500 else "invalid_request_error")
    assert twin["param"] == document.get("param")
    return document


def wav_header(rate: int, channels: int, n_bytes: int) -> bytes:
    frame = 2 * channels
    layout = struct.pack("<HHIIHH", 1, channels, rate, rate * frame, frame, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", n_bytes)
    return b"RIFF" + struct.pack("<I", len(chunks) + n_bytes) + chunks


BAD_AUDIO = {
    "empty": b"",
    "unsupported-format": b"GIF89a, not audio",
    "corrupt": b"fLaC" + bytes(100),
    "truncated": encoded(tone())[:-1000],
    "non-finite": encoded(np.array([0, np.nan] * 800, np.float32)),
    "amplitude": encoded(np.full(1600, 1e30, np.float32)),
    "too-short": encoded(tone(0.024)),
    "sample-rate": wav_header(1, 1, 4000) + bytes(4000),
    "channels": wav_header(16_000, 9, 18 * 1600) + bytes(18 * 1600),
    "too-long": encoded(tone(2.1)),
    "decoded-too-large": encoded(np.zeros((30_000, 8)), rate=192_000, kind="FLAC"),
}
NUMBERS = {
    "truncated": (1.0, 0.96875, "s"),
    "amplitude": (65_536.0, pytest.approx(1e30), None),
    "too-short": (0.025, 0.024, "s"),
    "sample-rate": (4000, 1, "Hz"),
    "channels": (8, 9, "channels"),
    "too-long": (2.0, 2.1, "s"),
    "decoded-too-large": (500_000, 960_000, "bytes"),
}


@pytest.fixture(scope="module")
def strict(serve: Serve) -> Iterator[httpx.Client]:
    """The service with limits that small files meet."""
    with serve(max_duration_s=2.0, max_decoded_bytes=500_000) as client:
        yield client


@pytest.mark.parametrize("in_form", [False, True])
@pytest.mark.parametrize("slug", BAD_AUDIO)
def test_bad_audio_is_refused_with_its_limit(
    strict: httpx.Client, slug: str, in_form: bool
) -> None:
    bad = BAD_AUDIO[slug]
    if in_form:
        answer = strict.post(URL, files={"file": ("bad.wav", bad)})
    else:
        answer = strict.post(URL, content=bad, headers=WAV)
    document = refused(answer, slug)
    assert document["file_index"] == 0
    assert document.get("file") == ("bad.wav" if in_form else None)
    limit, observed, unit = NUMBERS.get(slug, (None, None, None))
    assert (document.get("limit"), document.get("observed")) == (limit, observed)
    assert document.get("unit") == unit


def test_a_request_whose_files_all_fail_names_each(client: httpx.Client) -> None:
    files = [("file", ("a", b"")), ("file", ("b", b"GIF89a"))]
    document = refused(client.post(URL, files=files), "empty")
    assert document["file_index"] == 0
    assert [(p["file_index"], p["file"], p["type"]) for p in document["problems"]] == [
        (0, "a", "/problems/empty"),
        (1, "b", "/problems/unsupported-format"),
    ]


def test_npy_has_no_room_for_a_broken_file(client: httpx.Client) -> None:
    files = [("file", ("a", encoded(tone()))), ("file", ("b", b""))]
    document = refused(client.post(URL, files=files, params={"output": "npy"}), "empty")
    assert (document["file_index"], document["file"]) == (1, "b")


@pytest.mark.parametrize(
    ("asked", "name", "limit"),
    [
        ({"window_s": "0"}, "window_s", 0),
        ({"window_s": "-1"}, "window_s", 0),
        ({"window_s": "nan"}, "window_s", None),
        ({"window_s": "long"}, "window_s", None),
        ({"window_s": "0.005"}, "window_s", 0.01),
        ({"window_s": "1", "hop_s": "0.001"}, "hop_s", 0.01),
        ({"window_s": "1", "hop_s": "2"}, "hop_s", 1),
        ({"window_s": "1", "hop_s": "0.05"}, "hop_s", 0.0625),
        ({"hop_s": "1"}, "hop_s", None),
        ({"output": "xml"}, "output", None),
        ({"model": "x" * 200}, "model", 128),
        ({"windows_s": "1"}, "windows_s", None),
    ],
)
@pytest.mark.parametrize("in_form", [False, True])
def test_a_parameter_is_refused_by_name_with_its_value(
    client: httpx.Client, asked: dict[str, str], name: str, limit: float | None, in_form: bool
) -> None:
    wav = encoded(tone())
    if in_form:
        answer = client.post(URL, files={"file": ("a.wav", wav)}, data=asked)
    else:
        answer = client.post(URL, content=wav, params=asked, headers=WAV)
    document = refused(answer, "invalid-parameter")
    assert document["param"] == name
    assert document.get("limit") == limit
    (parameter,) = document["invalid_params"]
    assert parameter["name"] == name
    assert name in parameter["reason"]
    assert parameter["value"].startswith(asked[name][:100].rstrip("0").rstrip("."))


def test_one_array_cannot_hold_the_windows_of_several_files(client: httpx.Client) -> None:
    files = [("file", ("a", encoded(tone()))), ("file", ("b", encoded(tone())))]
    answer = client.post(URL, files=files, params={"output": "npy", "window_s": "0.5"})
    assert "base64" in refused(answer, "invalid-parameter")["detail"]


def test_an_unknown_model_is_not_found_and_the_known_are_named(client: httpx.Client) -> None:
    answer = client.post(URL, content=encoded(tone()), params={"model": "big"}, headers=WAV)
    document = refused(answer, "model-not-found")
    assert document["param"] == "model"
    assert "tiny" in document["detail"]


def test_more_windows_than_the_limit_are_refused(serve: Serve) -> None:
    with serve(max_windows=10) as client:
        asked = {"window_s": "0.1"}
        fits = client.post(URL, content=encoded(tone(1.0)), params=asked, headers=WAV)
        assert len(fits.json()["data"][0]["windows"]) == 10
        answer = client.post(URL, content=encoded(tone(1.05)), params=asked, headers=WAV)
    document = refused(answer, "too-many-windows")
    assert (document["limit"], document["observed"], document["unit"]) == (10, 11, "windows")


def test_the_file_that_makes_a_request_too_long_is_refused_alone(serve: Serve) -> None:
    files = [("file", (name, encoded(tone(s)))) for name, s in (("a", 1.0), ("b", 0.8), ("c", 0.2))]
    with serve(max_request_duration_s=1.5) as client:
        first, second, third = client.post(URL, files=files).json()["data"]
    assert "embedding" in first
    assert "embedding" in third
    assert second["error"]["type"] == "/problems/request-too-long"
    assert (second["error"]["limit"], second["error"]["observed"]) == (1.5, 1.8)


def test_too_many_files_are_refused(serve: Serve) -> None:
    files = [("file", (str(i), encoded(tone(0.1)))) for i in range(3)]
    with serve(max_files=2) as client:
        assert client.post(URL, files=files[:2]).status_code == 200
        document = refused(client.post(URL, files=files), "too-many-files")
    assert (document["limit"], document["observed"], document["unit"]) == (2, 3, "files")


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("media_type", ["audio/wav", "multipart/form-data; boundary=b"])
def test_a_body_over_the_limit_is_refused_with_and_without_content_length(
    serve: Serve, is_chunked: bool, media_type: str
) -> None:
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = start + bytes(200_000)
    with serve(max_body_bytes=100_000) as client:
        content = (body[i : i + 1000] for i in range(0, len(body), 1000)) if is_chunked else body
        answer = client.post(URL, content=content, headers={"Content-Type": media_type})
        document = refused(answer, "body-too-large")
        assert document["limit"] == 100_000
        assert 100_000 < document["observed"] <= len(body)
        assert (document["observed"] == len(body)) or is_chunked
        assert client.get("/livez").status_code == 200  # the connection has survived


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""]
)
def test_other_kinds_of_body_are_refused_with_those_that_are_not(
    client: httpx.Client, media_type: str
) -> None:
    answer = client.post(URL, content=encoded(tone()), headers={"Content-Type": media_type})
    document = refused(answer, "unsupported-media-type")
    assert "audio/*" in document["accepted"]
    assert "multipart/form-data" in answer.headers["Accept-Post"]


def test_compressed_bodies_are_refused(client: httpx.Client) -> None:
    headers = WAV | {"Content-Encoding": "gzip"}
    refused(client.post(URL, content=b"\x1f\x8b" * 100, headers=headers), "content-encoding")


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        (b"", "missing-file"),
        (b"garbage", "bad-request"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--\r\n", "bad-request"),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
            "missing-file",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="hop_s"\r\n\r\n1\r\n--b--\r\n',
            "missing-file",
        ),
    ],
)
def test_a_form_that_cannot_be_used_is_refused(
    client: httpx.Client, content: bytes, slug: str
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(client.post(URL, content=content, headers=headers), slug)


def test_a_form_without_a_boundary_is_refused(client: httpx.Client) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    refused(client.post(URL, content=b"x", headers=headers), "bad-request")


def test_a_file_under_another_name_is_refused_with_the_right_one(client: httpx.Client) -> None:
    document = refused(client.post(URL, files={"audio": io.BytesIO(b"x")}), "missing-file")
    assert "'audio'" in document["detail"]
    assert "`file`" in document["detail"]


def test_many_fields_and_long_fields_are_refused(client: httpx.Client) -> None:
    wav = {"file": ("a.wav", encoded(tone()))}
    many = {f"field{i}": "x" for i in range(40)}
    refused(client.post(URL, files=wav, data=many), "bad-request")
    refused(client.post(URL, files=wav, data={"model": "x" * 20_000}), "bad-request")


def test_unknown_paths_and_methods_are_problems_too(client: httpx.Client) -> None:
    assert "/nowhere" in refused(client.get("/nowhere"), "not-found")["detail"]
    answer = client.get(URL)
    refused(answer, "method-not-allowed")
    assert answer.headers["Allow"] == "POST"


def test_every_problem_has_a_page_at_its_type(client: httpx.Client) -> None:
    pages = client.get("/problems").json()
    assert {page["type"] for page in pages} == {kind.uri for kind in PROBLEM_TYPES.values()}
    for page in pages:
        assert client.get(page["type"]).json() == page
        assert page["remedy"]
    refused(client.get("/problems/other"), "not-found")


@pytest.mark.parametrize("slug", ["too-long", "body-too-large"])
def test_the_remedy_for_a_long_recording_is_a_stream_or_a_job(
    client: httpx.Client, slug: str
) -> None:
    remedy = client.get(f"/problems/{slug}").json()["remedy"]
    assert "`stream=true`" in remedy
    assert "job" in remedy


def test_every_reason_of_the_decoder_is_a_problem_of_its_own() -> None:
    problems = {as_problem(AudioError(reason, "no")).kind.slug for reason in get_args(Reason)}
    assert len(problems) == len(get_args(Reason)) - 1  # unreadable is for paths: none here


@pytest.mark.parametrize("reason", get_args(ServiceReason))
def test_every_reason_of_the_inner_layers_is_a_problem(reason: ServiceReason) -> None:
    problem = as_problem(ServiceError(reason, "It does not work.", param="hop_s", value=2.0))
    assert problem.kind is PROBLEM_TYPES[reason]
    assert (problem.detail, problem.extensions["param"]) == ("It does not work.", "hop_s")


def test_what_may_work_later_says_when() -> None:
    problem = as_problem(ServiceError("overloaded", "Full.", limit=1, observed=2, retry_after_s=3))
    assert problem.headers == {"Retry-After": "3"}
    assert problem.document() | {"limit": 1, "observed": 2, "status": 503} == problem.document()
