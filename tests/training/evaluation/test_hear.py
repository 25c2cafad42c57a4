"""training/evaluation/hear.py: what HEAR's validator checks, and times that are true."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.modelfile import ModelFileError
from tests.signals import noise
from training.evaluation import hear


@pytest.fixture(scope="module")
def model() -> hear.Model:
    return hear.load_model()


def sounds(n: int, seconds: float) -> Tensor:
    return torch.from_numpy(np.stack([noise(seconds, seed) for seed in range(n)]))


def test_a_model_tells_its_rate_and_sizes(model: hear.Model) -> None:
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate == 16_000
    assert (model.scene_embedding_size, model.timestamp_embedding_size) == (1024, 1728)
    assert model.to("cpu") is model


def test_a_scene_has_one_vector_a_sound(model: hear.Model) -> None:
    vectors = hear.get_scene_embeddings(sounds(4, 2.74), model)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (4, 1024)


def test_whole_numbers_have_the_scale_of_their_type(model: hear.Model) -> None:
    batch = (sounds(2, 0.5) * 32767).to(torch.int16)
    torch.testing.assert_close(
        hear.get_scene_embeddings(batch, model), hear.get_scene_embeddings(batch / 32768, model)
    )
    with pytest.raises(ValueError, match=r"audio of shape \(8000,\); expected \(sounds, samples\)"):
        hear.get_scene_embeddings(batch[0], model)


@pytest.mark.parametrize("seconds", [0.05, 1.07, 1.98, 4.0, 12.0])
def test_timestamps_are_even_and_span_the_sound(model: hear.Model, seconds: float) -> None:
    vectors, times = hear.get_timestamp_embeddings(sounds(2, seconds), model)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (*times.shape, 1728)
    assert torch.equal(times[0], times[1])
    steps = times.diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 80.0), atol=1e-2, rtol=0)
    assert 0 <= times.min() < 80
    assert 1000 * seconds - 80 <= times.max() <= 1000 * seconds


def test_a_click_is_in_the_frame_whose_time_is_nearest(model: hear.Model) -> None:
    quiet = noise(3.0, level=1e-4)
    for at_s in (0.5, 1.23, 2.0):
        click = quiet.copy()
        click[round(at_s * 16_000) : round(at_s * 16_000) + 16] += 0.5
        batch = torch.from_numpy(np.stack([quiet, click]))
        vectors, times = hear.get_timestamp_embeddings(batch, model)
        change = (vectors[1] - vectors[0]).norm(dim=1)
        assert abs(times[0, change.argmax()] - 1000 * at_s) <= 30


def test_timestamps_are_what_layers_give_of_the_frames_that_the_scene_is_pooled_from(
    model: hear.Model,
) -> None:
    batch = sounds(2, 1.0)
    frames, _ = hear.get_timestamp_embeddings(batch, model)
    scenes = hear.get_scene_embeddings(batch, model)
    for sound, row, scene in zip(batch, frames, scenes, strict=True):
        pool, whole = model.encoder.pool(), model.encoder.frames(sound.numpy())
        pool.add(whole)
        torch.testing.assert_close(scene, torch.from_numpy(pool.embedding()), atol=1e-4, rtol=0)
        np.testing.assert_array_equal(row.numpy(), whole[:, : row.shape[1]])


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        hear.load_model(tmp_path / "gone.onnx")
