"""Readiness that notices when inference hangs, and decoding that fails."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from service.app import create_app
from service.exceptions import ServiceError
from service.inference.watchdog import Heartbeat, Watchdog
from service.settings import Settings
from tests.service.conftest import encoded, serving, tone, until

URL = "/v1/audio/embeddings"


class HangingSession:
    """A session that answers when it is let go, or with other numbers than it should."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.goes_on = threading.Event()
        self.factor = 1.0

    def run(self, *args: Any) -> Any:
        self.goes_on.wait()
        return [output * self.factor for output in self.session.run(*args)]


def hang(app: FastAPI) -> HangingSession:
    encoder = app.state.context.catalogue.models["tiny"].network
    encoder._session = HangingSession(encoder._session)
    session: HangingSession = encoder._session
    return session


@pytest.mark.parametrize("is_idle", [True, False])
def test_readiness_turns_red_when_inference_hangs_and_green_when_it_answers(
    model_file: Path, is_idle: bool
) -> None:
    app = create_app(
        Settings(
            models=model_file,
            threads=1,
            hang_timeout_s=0.3,
            probe_interval_s=0.05 if is_idle else 3600,
        )
    )
    with serving(Settings(), lambda _: app) as client:
        until(lambda: client.get("/readyz").status_code == 200)  # a busy machine is slow to probe
        session = hang(app)
        try:
            if not is_idle:
                threading.Thread(
                    target=client.post, args=(URL,), kwargs={"content": encoded(tone())}
                ).start()
            until(lambda: client.get("/readyz").status_code == 503)
            (reason,) = client.get("/readyz").json()["reasons"]
            assert "has not answered" in reason
            assert client.get("/livez").status_code == 200
        finally:
            session.goes_on.set()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post(URL, content=encoded(tone())).status_code == 200


def test_an_inference_that_was_given_up_keeps_readiness_red_until_it_is_back(
    model_file: Path,
) -> None:
    settings = Settings(models=model_file, threads=1, inference_timeout_s=0.2, hang_timeout_s=3600)
    app = create_app(settings)
    with serving(Settings(), lambda _: app) as client:
        session = hang(app)
        try:
            assert client.post(URL, content=encoded(tone())).status_code == 503
            assert client.get("/readyz").json()["reasons"] == ["inference hangs"]
            assert client.get("/v2/health/ready").json() == {"ready": False}  # as `/readyz`
        finally:
            session.goes_on.set()
        until(lambda: client.get("/readyz").status_code == 200)


def test_a_model_that_begins_to_compute_something_else_turns_readiness_red(
    model_file: Path,
) -> None:
    app = create_app(Settings(models=model_file, threads=1, probe_interval_s=0.05))
    with capture_logs() as logs, serving(Settings(), lambda _: app) as client:
        session = hang(app)
        session.factor = 1.1
        session.goes_on.set()
        until(lambda: client.get("/readyz").status_code == 503)
        assert "probe" in client.get("/readyz").json()["reasons"][0]
        session.factor = 1.0
        until(lambda: client.get("/readyz").status_code == 200)
    assert sum(entry["event"] == "probe failed" for entry in logs) == 1


def test_work_that_waits_its_turn_is_no_silence_as_long_as_some_is_done() -> None:
    now = [0.0]
    pulse = Heartbeat(clock=lambda: now[0])
    with pulse.awaited():
        for _ in range(10):
            with pulse.awaited():
                now[0] += 5
        assert pulse.silence_s == 0
        now[0] += 7
        assert pulse.silence_s == 7
        assert not pulse.is_idle
    assert pulse.is_idle
    assert pulse.silence_s == 0


def test_a_failure_is_a_sign_of_life_but_a_caller_who_leaves_is_none() -> None:
    now = [0.0]
    pulse = Heartbeat(clock=lambda: now[0])
    with pulse.awaited():
        now[0] = 5
        with pytest.raises(asyncio.CancelledError), pulse.awaited():
            raise asyncio.CancelledError
        assert pulse.silence_s == 5
        with pytest.raises(ValueError, match="broken"), pulse.awaited():
            raise ValueError("broken")
        assert pulse.silence_s == 0


@pytest.mark.parametrize("error", [ServiceError("deadline", "Too late."), KeyError("a fault")])
def test_a_probe_that_fails_for_a_reason_is_a_line_of_the_log(error: Exception) -> None:
    async def probe() -> None:
        raise error

    async def watch() -> None:
        dog = Watchdog(Heartbeat(), interval_s=0.01, patience_s=9)
        watching = asyncio.create_task(dog.watch(probe))
        await asyncio.sleep(0.1)
        watching.cancel()

    with capture_logs() as logs:
        asyncio.run(watch())
    (line,) = [line for line in logs if line["event"] == "probe failed"]
    assert line["reason"] == str(error)
    assert bool(line["exc_info"]) == isinstance(error, KeyError)


def test_what_is_busy_is_not_probed() -> None:
    probes = []

    async def probe() -> None:
        probes.append(1)

    async def watch() -> None:
        pulse = Heartbeat()
        dog = asyncio.create_task(Watchdog(pulse, interval_s=0.01, patience_s=9).watch(probe))
        with pulse.awaited():
            await asyncio.sleep(0.1)
            assert not probes
        await asyncio.sleep(0.1)
        dog.cancel()

    asyncio.run(watch())
    assert probes
