"""What Prometheus finds at `/metrics`."""

import os
import re
import signal

import httpx
import pytest

from service.problem_types import PROBLEM_TYPES
from service.telemetry.metrics import STAGES
from tests.service.audio.test_decoder import children
from tests.service.conftest import Serve, encoded, tone, until

URL = "/v1/audio/embeddings"
WAV = {"Content-Type": "audio/wav"}
SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def scraped(client: httpx.Client) -> dict[str, float]:
    """Every sample by its name and labels, as they stand on the page."""
    page = client.get("/metrics")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/plain; version=")
    found = SAMPLE.findall(page.text)
    return {f"{name}{{{labels}}}" if labels else name: float(v) for name, labels, v in found}


def test_requests_audio_and_stages_are_counted(serve: Serve) -> None:
    with serve() as client:
        before = scraped(client)
        asked = {"window_s": "0.5"}
        assert client.post(URL, content=encoded(tone(2.0)), params=asked, headers=WAV).is_success
        client.post(URL, files=[("file", ("a", encoded(tone()))), ("file", ("b", b""))])
        client.post(URL, content=b"GIF89a", headers=WAV)
        client.get("/nowhere?secret")
        client.request("BREW", "/secret")
        labels = f'{{method="POST",route="{URL}",status='
        until(lambda: scraped(client)[f'viola_http_requests_total{labels}"415"}}'] == 1)
        after = scraped(client)
    assert before[f'viola_http_requests_total{labels}"200"}}'] == 0
    assert after[f'viola_http_requests_total{labels}"200"}}'] == 2
    assert after['viola_audio_seconds_total{result="decoded"}'] == pytest.approx(3.0)
    assert after['viola_audio_seconds_total{result="embedded"}'] == pytest.approx(3.0)
    assert after["viola_windows_total"] == 4
    assert after['viola_refused_files_total{reason="empty"}'] == 1
    assert after['viola_rejected_total{reason="unsupported-format"}'] == 1
    assert after['viola_rejected_total{reason="empty"}'] == 0  # the request had another file
    assert after['viola_stage_duration_seconds_count{stage="infer"}'] == 3
    assert after["viola_request_files_sum"] == 4
    assert after["viola_request_body_bytes_count"] == 3
    assert after['viola_http_requests_total{method="GET",route="none",status="404"}'] == 1
    assert not any("secret" in name or "BREW" in name for name in after)


def test_every_value_of_a_label_is_there_from_the_start_at_0(serve: Serve) -> None:
    with serve() as client:
        page = scraped(client)
    for slug in PROBLEM_TYPES:
        assert page[f'viola_rejected_total{{reason="{slug}"}}'] == 0
    for stage in STAGES:
        assert page[f'viola_stage_duration_seconds_count{{stage="{stage}"}}'] == 0
    for cause in ("timeout", "cpu", "memory", "signal", "exit"):
        assert page[f'viola_decode_worker_restarts_total{{cause="{cause}"}}'] == 0
    for status in ("200", "401", "413", "422", "429", "503"):
        assert (
            page[f'viola_http_requests_total{{method="POST",route="{URL}",status="{status}"}}'] == 0
        )


def test_the_state_of_the_service_is_read_when_it_is_asked_for(serve: Serve) -> None:
    with serve(decode_workers=1, max_inflight=7) as client:
        page = scraped(client)
        assert (page["viola_ready"], page["viola_draining"]) == (1, 0)
        assert (page["viola_inflight_requests"], page["viola_inflight_limit"]) == (0, 7)
        assert page["viola_decode_workers"] == 2  # and a spare
        assert page['viola_model_info{embed_dim="4",model="tiny",space_id="space-of-tiny"}'] == 1
        assert any(name.startswith("viola_build_info{") for name in page)
        assert page["process_resident_memory_bytes"] > 0
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        assert client.post(URL, content=encoded(tone()), headers=WAV).is_success
        assert scraped(client)['viola_decode_worker_restarts_total{cause="signal"}'] >= 1


def test_they_can_be_switched_off(serve: Serve) -> None:
    with serve(metrics=False) as client:
        assert client.get("/metrics").status_code == 404


def test_names_follow_the_habits_of_prometheus(client: httpx.Client) -> None:
    page = client.get("/metrics").text
    for name, kind in re.findall(r"^# TYPE (viola_\w+) (\w+)$", page, re.MULTILINE):
        assert (kind == "counter") == name.endswith("_total"), name
        if kind == "histogram":
            assert name.endswith(("_seconds", "_bytes", "_files", "_rows")), name
    assert "_created" not in page
