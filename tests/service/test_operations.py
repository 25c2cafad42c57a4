"""What an operator looks at: models, limits, health, logs, request ids."""

import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import APIRouter, FastAPI
from structlog.testing import capture_logs

from service.app import create_app
from service.settings import Settings
from service.traffic import doors
from service.traffic.access import open_to_all
from tests.service.conftest import GRAPH, Serve, encoded, serving, tone, until, write_model

URL = "/v1/audio/embeddings"
WAV = {"Content-Type": "audio/wav"}


def test_the_process_is_alive(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
def test_readiness_tells_each_models_golden_check(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    (model,) = answer.json()["models"]
    assert (model["name"], model["status"], model["space_id"]) == ("tiny", "ready", "space-of-tiny")
    assert 0 <= model["golden_error"] < 1e-5


def test_a_model_that_fails_is_reported_and_the_others_serve(
    serve: Serve, tmp_path: Path, model_file: Path
) -> None:
    shutil.copy(model_file, tmp_path / "tiny.onnx")
    write_model(tmp_path / "off.onnx", "off", golden_scale=1.01)
    (tmp_path / "noise.onnx").write_bytes(b"no model")
    with capture_logs() as logs, serve(models=tmp_path) as client:
        answer = client.get("/readyz")
        listed = client.get("/v1/models").json()["data"]
        refused = client.post(URL, content=encoded(tone()), params={"model": "off"}, headers=WAV)
    assert answer.status_code == 200
    status = {model.get("name") or model["file"]: model for model in answer.json()["models"]}
    assert set(status) == {"tiny", "off.onnx", "noise.onnx"}
    assert "golden" in status["off.onnx"]["reason"]
    assert "opened" in status["noise.onnx"]["reason"]
    assert str(tmp_path) not in answer.text
    assert [model["id"] for model in listed] == ["tiny"]
    assert refused.status_code == 404
    assert sum(entry["event"] == "model refused" for entry in logs) == 2


@pytest.mark.parametrize("models", ["nowhere.onnx", "."])
def test_without_a_usable_model_the_process_lives_but_is_not_ready(
    serve: Serve, tmp_path: Path, models: str
) -> None:
    with serve(models=tmp_path / models) as client:
        assert client.get("/livez").status_code == 200
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
        refused = client.post(URL, content=encoded(tone()), headers=WAV)
    assert refused.status_code == 503
    assert refused.json()["type"] == "/problems/model-unavailable"


def test_the_default_model_is_the_one_called_so_unless_another_is_set(
    serve: Serve, tmp_path: Path
) -> None:
    for name in ("a", "default"):
        write_model(tmp_path / f"{name}.onnx", name)
    for setting, expected in ((None, "default"), ("a", "a")):
        with serve(models=tmp_path, default_model=setting) as client:
            answer = client.post(URL, content=encoded(tone()), headers=WAV)
            assert answer.json()["model"] == expected
            listed = client.get("/v1/models").json()["data"]
            assert [(m["id"], m["default"]) for m in listed] == [
                (name, name == expected) for name in ("a", "default")
            ]
            named = client.post(URL, content=encoded(tone()), params={"model": "a"}, headers=WAV)
            assert named.json()["model"] == "a"
    with serve(models=tmp_path, default_model="c") as client:
        assert client.get("/readyz").status_code == 503


def test_a_model_is_described_by_its_card_without_the_golden_vector(client: httpx.Client) -> None:
    entry = client.get("/v1/models/tiny").json()
    assert client.get("/v1/models").json() == {"object": "list", "data": [entry]}
    assert (entry["id"], entry["object"], entry["default"]) == ("tiny", "model", True)
    assert entry["space_id"] == entry["card"]["space_id"] == "space-of-tiny"
    assert entry["card"]["embed_dim"] == 4
    assert "embedding" not in entry["card"]["golden"]
    assert client.get("/v1/models/huge").json()["type"] == "/problems/model-not-found"


def test_limits_have_the_names_and_values_of_the_settings(serve: Serve) -> None:
    with serve(max_files=3, max_duration_s=12.5) as client:
        limits = client.get("/v1/limits").json()
    assert (limits["max_files"], limits["max_duration_s"]) == (3, 12.5)
    assert (limits["min_duration_s"], limits["max_body_bytes"]) == (0.025, 25 * 2**20)
    assert "FLAC" in limits["formats"]
    named = {name for name in limits if name in Settings.model_fields}
    limiting = ("max_", "decode_cpu", "decode_wall", "decode_memory", "body_timeout")
    assert {name for name in Settings.model_fields if name.startswith(limiting)} <= named


def test_a_request_id_is_echoed_if_it_is_harmless_and_made_if_not(client: httpx.Client) -> None:
    own = client.get("/livez", headers={"X-Request-ID": "job-7_a.b"})
    assert own.headers["X-Request-ID"] == "job-7_a.b"
    for bad in ("a b", "x" * 129, "<script>", "é".encode()):
        made = client.get("/livez", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/nowhere", "/docs", URL])
def test_every_answer_has_the_standing_headers(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Request-ID"]
    assert "total;dur=" in headers["Server-Timing"]


def test_a_request_is_one_line_in_the_log_without_names_or_audio(client: httpx.Client) -> None:
    wav = encoded(tone())
    with capture_logs() as logs:
        answer = client.post(
            URL, files={"file": ("secret\n.wav", wav)}, headers={"X-Request-ID": "r1"}
        )
        client.get("/v1/models/tiny?key=secret")
        wanted = {("POST", URL), ("GET", "/v1/models/{model_id}")}
        until(lambda: wanted <= {(e.get("method"), e.get("route")) for e in logs})
    assert answer.status_code == 200
    lines = {(e["method"], e["route"]): e for e in logs if e["event"] == "request"}
    first, second = lines["POST", URL], lines["GET", "/v1/models/{model_id}"]
    assert first["status"] == 200
    assert first["bytes_in"] > len(wav)
    assert first["bytes_out"] == len(answer.content)
    assert first["ms"] > 0
    assert second["status"] == 200
    assert "secret" not in str(logs)


def boom_app(settings: Settings) -> FastAPI:
    app = create_app(settings)

    router = APIRouter()

    @router.get("/boom")
    @open_to_all
    async def boom() -> None:
        raise RuntimeError("the password is 1234")

    doors.install(app, router.routes, app.state.gate)
    return app


def test_an_unexpected_error_is_logged_and_answered_without_its_text(model_file: Path) -> None:
    with (
        capture_logs() as logs,
        serving(Settings(models=model_file, threads=1), boom_app) as client,
    ):
        answer = client.get("/boom")
    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/internal"
    assert "1234" not in answer.text
    assert answer.headers["X-Request-ID"] in answer.json()["instance"]
    (entry,) = (entry for entry in logs if entry["event"] == "request failed")
    assert entry["log_level"] == "error"


def test_vectors_that_are_no_numbers_never_leave(serve: Serve, tmp_path: Path) -> None:
    graph = GRAPH.replace("{-1e30}>", "{-1e30}, float tenth = {0.1}>").replace(
        "(products)", "(roots)"
    )
    # The products of the reference signal are all above -0.1
    roots = "raised = Add (products, tenth)\n    roots = Sqrt (raised)\n    frames ="
    path = write_model(tmp_path / "tiny.onnx", graph=graph.replace("frames =", roots, 1))
    like_a_filter = np.roll(tone(1.0, hz=100), -40)  # turned over, each frame's product is negative
    files = [
        ("file", (name, encoded(s))) for name, s in (("a", -like_a_filter), ("b", like_a_filter))
    ]
    with serve(models=path) as client:
        answer = client.post(URL, files=files[:1])
        assert answer.status_code == 500
        assert answer.json()["type"] == "/problems/internal"
        first, second = client.post(URL, files=files).json()["data"]
    assert first["error"]["type"] == "/problems/internal"
    assert "embedding" in second
