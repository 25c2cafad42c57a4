"""Who has used how much: in `/v1/usage`, in the log, in the metrics."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from service.traffic.auth import digest_of, new_key
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.telemetry.test_metrics import scraped

URL = "/v1/audio/embeddings"
KEYS = {name: new_key() for name in ("web", "app", "scraper", "poor")}
LINES = [f"{name}:{digest_of(KEYS[name])}:embed" for name in ("web", "app")]
LINES += [f"scraper:{digest_of(KEYS['scraper'])}:metrics"]
LINES += [f"poor:{digest_of(KEYS['poor'])}:embed:0.1"]


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@pytest.fixture
def keyed(serve: Serve) -> Iterator[httpx.Client]:
    with serve(api_keys=" ".join(LINES)) as client:
        yield client


def used(client: httpx.Client, by: str) -> dict[str | None, tuple[int, float]]:
    answer = client.get("/v1/usage", headers=bearer(by))
    assert answer.status_code == 200
    rows: list[dict[str, Any]] = answer.json()["data"]
    return {row["key"]: (row["requests"], row["audio_seconds"]) for row in rows}


def test_all_that_is_decoded_is_on_the_account_of_its_key(keyed: httpx.Client) -> None:
    wav = encoded(tone(1.5))
    keyed.post(URL, content=wav, headers=bearer("web"))
    keyed.post(URL, files=[("file", ("a", wav)), ("file", ("b", b""))], headers=bearer("web"))
    keyed.post(f"{URL}?stream=true", content=wav, headers=bearer("web"))
    keyed.post("/v1/audio/inspect?decode=true", content=wav, headers=bearer("web"))
    keyed.post("/v1/audio/inspect", content=wav, headers=bearer("web"))
    keyed.post(URL, content=b"GIF89a", headers=bearer("app"))
    keyed.post(URL, content=wav, headers={"Authorization": "Bearer none"})
    until(lambda: used(keyed, "scraper")["app"] == (1, 0.0))
    all_of_them = used(keyed, "scraper")
    assert all_of_them["web"] == (5, 6.0)
    assert all_of_them["poor"] == (0, 0.0)
    assert set(all_of_them) == set(KEYS)
    page = keyed.get("/metrics", headers=bearer("scraper")).text
    assert 'viola_key_audio_seconds_total{key="web"} 6.0' in page
    assert 'viola_key_requests_total{key="web"} 5.0' in page
    assert 'viola_key_requests_total{key="poor"} 0.0' in page


def test_a_key_sees_its_own_usage_and_no_other(keyed: httpx.Client) -> None:
    keyed.post(URL, content=encoded(tone(1.5)), headers=bearer("web"))
    until(lambda: used(keyed, "scraper")["web"][0] == 1)
    assert used(keyed, "web") == {"web": (1, 1.5)}
    assert set(used(keyed, "app")) == {"app"}
    assert keyed.get("/v1/usage").status_code == 401


def test_a_request_is_one_line_with_its_key_and_seconds(keyed: httpx.Client) -> None:
    with capture_logs() as logs:
        keyed.post(URL, content=encoded(tone(1.5)), headers=bearer("poor"))
        keyed.post(URL, content=encoded(tone(1.5)), headers=bearer("poor"))
        keyed.post(f"{URL}?stream=true", content=encoded(tone(1.5)), headers=bearer("web"))
        until(lambda: len([e for e in logs if e["event"] == "request"]) == 3)
    first, refusal, streamed = (entry for entry in logs if entry["event"] == "request")
    assert (first["key"], first["audio_s"], first["status"]) == ("poor", 1.5, 200)
    assert (refusal["key"], refusal["status"]) == ("poor", 429)
    assert "audio_s" not in refusal
    assert (streamed["key"], streamed["audio_s"]) == ("web", 1.5)


def test_an_open_service_has_one_account(serve: Serve) -> None:
    with serve() as client:
        client.post(URL, content=encoded(tone(1.5)))
        until(lambda: scraped(client)['viola_key_audio_seconds_total{key=""}'] == 1.5)
        (row,) = client.get("/v1/usage").json()["data"]
    assert (row["key"], row["audio_seconds"]) == (None, 1.5)
    assert row["requests"] >= 1
