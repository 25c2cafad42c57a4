"""Jobs through the client, sync and async, against a service with a store."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import viola
from service.settings import Settings
from tests.service.conftest import serving, write_model
from tests.signals import tone
from viola.client import job_calls


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    write_model(folder / "tiny.onnx")
    settings = Settings(models=folder / "tiny.onnx", threads=1, data=folder / "data")
    with serving(settings) as http:
        yield str(http.base_url)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sounds")
    paths = [folder / f"tone-{hz}.wav" for hz in (100, 400)]
    for path, hz in zip(paths, (100, 400), strict=True):
        sf.write(path, tone(hz, 2.0), 16_000)
    broken = folder / "broken.wav"
    broken.write_bytes(b"no audio")
    return [*paths, broken]


def test_a_job_is_submitted_waited_for_and_read(
    address: str, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_calls, "PIECE_BYTES", 10_000)
    with viola.Client(address) as client:
        job = client.jobs.submit("embed", sounds, window_s=1.0)
        assert (job.kind, job.files, job.asked["window_s"]) == ("embed", 3, 1.0)
        done = client.jobs.wait(job.id, poll_s=0.05, timeout_s=30)
        assert (done.state, done.files_done, done.files_failed) == ("done", 3, 1)
        first, second, broken = client.jobs.result(job.id)
        assert first.answer is not None
        assert second.answer is not None
        assert (first.file, first.answer.embeddings.shape) == ("tone-100.wav", (2, 4))
        at_once = client.embed(sounds[1])
        np.testing.assert_allclose(second.answer.embedding, at_once.embedding, atol=1e-5)
        assert second.answer.space_id == at_once.space_id
        assert broken.error is not None
        assert (broken.index, broken.error.kind) == (2, "unsupported-format")
        assert [one.id for one in client.jobs.list("done")] == [job.id]
        client.jobs.delete(job.id)
        with pytest.raises(viola.ServiceError, match="No such job"):
            list(client.jobs.result(job.id))
        with pytest.raises(ValueError, match="no name"):
            client.jobs.delete("..")
        heard = tone(400, 2.0)
        job = client.jobs.submit("embed", [heard], sample_rate=16_000)
        assert client.inspect(heard, sample_rate=16_000)["duration_s"] == 2.0
        client.jobs.delete(client.jobs.wait(job.id, poll_s=0.05, timeout_s=30).id)
        with pytest.raises(ValueError, match="expected one of embed"):
            client.jobs.submit("x")


def test_an_upload_goes_on_where_the_service_says(address: str, sounds: list[Path]) -> None:
    with viola.Client(address) as client:
        send, n_sent = client.send, 0

        def twice(call: object) -> object:
            nonlocal n_sent
            n_sent += getattr(call, "method", "") == "PATCH"
            if getattr(call, "method", "") == "PATCH" and n_sent == 1:
                send(call)  # type: ignore[arg-type]  # and its answer is lost
            return send(call)  # type: ignore[arg-type]

        jobs = client.jobs
        jobs._send = twice  # type: ignore[assignment]
        job = jobs.submit("embed", sounds[:1])
        assert client.jobs.wait(job.id, poll_s=0.05).files_failed == 0


def test_the_same_on_an_event_loop(address: str, sounds: list[Path]) -> None:
    async def run() -> None:
        async with viola.AsyncClient(address) as client:
            await client.collection("tones").make(granularity="clip")
            job = await client.jobs.submit("index", sounds[:2], collection="tones")
            assert (await client.jobs.wait(job.id, poll_s=0.05)).state == "done"
            items = [file.item async for file in client.jobs.result(job.id)]
            assert [item and item.file for item in items] == ["tone-100.wav", "tone-400.wav"]
            assert job.id in [one.id async for one in client.jobs.list()]
            cancelled = await client.jobs.cancel(job.id)
            assert cancelled.state == "done"
            await client.jobs.delete(job.id)
            with pytest.raises(viola.ServiceError):
                await client.jobs.show(job.id)

    asyncio.run(run())
