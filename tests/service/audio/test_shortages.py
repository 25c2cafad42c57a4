"""No more processes, files, or disk: a clear refusal, a line in the log, and no restart needed."""

import asyncio
import errno
import io
import os
from contextlib import suppress
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from models.limits import Limits
from service.audio import decoder as decoders
from service.audio.decode_process import DecoderProcess
from service.audio.decoder import Decoder
from service.exceptions import ServiceError
from service.traffic.budget import Budget, Costs
from tests.service.audio.test_decoder import children
from tests.service.conftest import Serve, encoded, tone, until

URL = "/v1/audio/embeddings"
LINES = {"stream": "true"}


class NoMore:
    """Fails with an error of the system for as long as it is told to."""

    def __init__(self, code: int, real: Any) -> None:
        self.code, self.real, self.is_out = code, real, True

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.is_out:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*args, **options)


def test_decoders_that_cannot_be_started_are_tried_again(serve: Serve, monkeypatch) -> None:
    with serve(decode_workers=1) as client:
        assert client.post(URL, content=encoded(tone())).status_code == 200
        monkeypatch.setattr(decoders, "WAIT_S", 0.3)
        lost = NoMore(errno.EAGAIN, DecoderProcess)
        monkeypatch.setattr(decoders, "DecoderProcess", lost)
        for pid in children():
            os.kill(pid, 9)
        until(lambda: client.get("/readyz").json()["reasons"] == ["no decoder runs"])
        with capture_logs() as logs:
            answer = client.post(URL, content=encoded(tone()))
            until(lambda: any(line["event"] == "decoder not started" for line in logs), 30)
        assert (answer.status_code, answer.json()["type"]) == (
            503,
            "/problems/decoder-unavailable",
        )
        assert answer.headers["Retry-After"]
        lost.is_out = False
        until(lambda: client.get("/readyz").status_code == 200, 30)
        assert client.post(URL, content=encoded(tone())).status_code == 200


@pytest.mark.parametrize(
    ("code", "status", "slug"),
    [
        (errno.ENOSPC, 507, "storage-full"),
        (errno.EDQUOT, 507, "storage-full"),
        (errno.EFBIG, 507, "storage-full"),
        (errno.EMFILE, 503, "resources-exhausted"),
    ],
)
@pytest.mark.parametrize("is_form", [False, True])
def test_an_upload_that_cannot_be_kept_is_refused(
    serve: Serve, monkeypatch, code: int, status: int, slug: str, is_form: bool
) -> None:
    wav = encoded(tone(60.0))
    target = (
        "tempfile.SpooledTemporaryFile.write" if is_form else "service.uploads.spool.write_whole"
    )
    real: Any = io.BytesIO.write
    out = NoMore(code, real)
    sent: dict[str, Any] = {"files": {"file": wav}} if is_form else {"content": wav}
    with serve() as client, monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(target, lambda *args: out(*args))
        answer = client.post(URL, params=LINES, **sent)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
        assert answer.headers["Retry-After"]
        assert any(line["event"] == "out of resources" for line in logs)
        patch.undo()
        assert client.post(URL, params=LINES, **sent).status_code == 200


def test_a_stream_without_a_process_is_refused(serve: Serve, monkeypatch) -> None:
    lost = NoMore(errno.EAGAIN, DecoderProcess)
    monkeypatch.setattr("service.audio.recordings.DecoderProcess", lost)
    with serve() as client:
        answer = client.post(URL, params=LINES, content=encoded(tone()))
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/resources-exhausted"
        lost.is_out = False
        assert client.post(URL, params=LINES, content=encoded(tone())).status_code == 200


def test_what_was_decoded_is_charged_whatever_became_of_it() -> None:
    flac = encoded(tone(120.0), kind="FLAC")
    paid: list[float] = []

    async def run() -> None:
        pool = Decoder(Limits(), 1)
        costs = Costs(Budget(1 << 30).share(), paid.append)
        try:
            with pytest.raises(ValueError, match="."):
                await pool.read(flac[:-200], costs)
            leaving = asyncio.create_task(pool.read(encoded(tone(300.0)), costs))
            await asyncio.sleep(0.05)
            leaving.cancel()
            with suppress(asyncio.CancelledError, ServiceError):
                await leaving
            assert costs.share.held == 0
        finally:
            pool.close()

    asyncio.run(run())
    assert paid[0] > 100
    assert len(paid) == 2


def test_a_damaged_tail_is_no_way_around_the_quota(serve: Serve) -> None:
    flac = encoded(tone(30.0), kind="FLAC")[:-200]
    with serve(audio_seconds_per_minute=20.0) as client:
        for path in (URL, "/v1/audio/inspect?decode=true"):
            answer: httpx.Response = client.post(path, content=flac)
            assert answer.status_code in (200, 422, 429)
        assert client.post(URL, content=encoded(tone())).status_code == 429
