"""`POST /v1/audio/log-mels`: what the model sees, whatever the length."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from models.modelfile import PRETRAINED
from models.runtime import Encoder
from service.inference.batcher import Batcher
from service.inference.log_mels import HIGH, HOP, LOW, cuts, log_mel
from service.settings import Settings
from tests.service.conftest import encoded, serving, tone

URL = "/v1/audio/log-mels"
WAV = {"Content-Type": "audio/wav"}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.open("default", threads=1)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(Settings(models=PRETRAINED / "default.onnx", threads=1)) as client:
        yield client


def picture(answer: dict[str, Any], index: int = 0) -> NDArray[np.uint8]:
    file = answer["data"][index]
    pixels = np.frombuffer(base64.b64decode(file["log_mel"]), np.uint8)
    return pixels.reshape(file["n_frames"], file["n_bands"])


@pytest.mark.parametrize("n_samples", [1, 159, 160, 4800, 16_000, 16_001, 20_000, 47_999])
def test_pieces_have_every_frame_once(n_samples: int) -> None:
    frames = [
        piece.start // HOP + frame
        for piece in cuts(n_samples, 16_000)
        for frame in range(piece.first, piece.end)
    ]
    assert frames == list(range(1 + n_samples // HOP))


def test_a_picture_does_not_depend_on_the_cuts(encoder: Encoder) -> None:
    noise = (np.random.default_rng(0).normal(0, 0.1, 60_000)).astype(np.float32)
    whole = encoder.run_batch("log_mel", [noise], len(noise))[0].T
    expected = np.clip((whole - LOW) / (HIGH - LOW), 0, 1) * 255

    async def drawn() -> NDArray[np.uint8]:
        batcher = Batcher()
        try:
            return await log_mel(batcher, _Short(encoder), noise)  # type: ignore[arg-type]
        finally:
            batcher.close()

    assert np.abs(asyncio.run(drawn()) - expected).max() <= 0.51


class _Short:
    """The encoder with tiles of a second."""

    def __init__(self, encoder: Encoder) -> None:
        self.tiling = _ShortTiling()
        self.run_batch = encoder.run_batch


class _ShortTiling:
    tile_samples = 16_000

    def bucket(self, n_samples: int) -> int:
        return 16_000

    def max_rows(self, bucket: int) -> int:
        return 1


def test_a_tone_is_a_line_at_its_height_and_silence_is_dark(client: httpx.Client) -> None:
    files = [
        ("file", ("low.wav", encoded(tone(1, hz=200)), "audio/wav")),
        ("file", ("high.wav", encoded(tone(2, hz=3000)), "audio/wav")),
        ("file", ("none.wav", encoded(np.zeros(16_000)), "audio/wav")),
        ("file", ("text.wav", b"no sound", "audio/wav")),
    ]
    answer = client.post(URL, files=files).json()
    low, high, silence = (picture(answer, index) for index in range(3))
    assert low.shape == (101, 64)
    assert high.shape == (201, 64)
    assert low[50].argmax() < high[50].argmax()
    assert low.max() > 200
    assert silence.max() <= 1
    assert answer["data"][3]["error"]["title"] == "Audio format not recognised"
    assert answer["hop_s"] == 0.01


def test_a_part_is_drawn_alone(client: httpx.Client) -> None:
    asked = {"start_s": 1.0, "end_s": 1.5}
    answer = client.post(URL, content=encoded(tone(3)), headers=WAV, params=asked).json()
    assert answer["data"][0]["start_s"] == 1.0
    assert picture(answer).shape == (51, 64)
    refused = client.post(URL, content=encoded(tone(3)), headers=WAV, params={"window_s": 1})
    assert refused.status_code == 400


def test_a_model_without_the_output_says_so(model_file: Any) -> None:
    with serving(Settings(models=model_file, threads=1)) as client:
        answer = client.post(URL, content=encoded(tone(1)), headers=WAV)
    assert answer.status_code == 404
    assert "export it again" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["default", "default-int8"])
def test_what_ships_gives_its_log_mel(name: str) -> None:
    assert Encoder.open(name, threads=1).gives_log_mel
