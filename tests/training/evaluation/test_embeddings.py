from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.labelled import tasks
from models.labelled.tasks import Task, TaskError
from models.modelfile import DEFAULT_MODEL, ModelFileError
from models.runtime import Encoder
from tests.labelled import clip, table_of_folds, write_clip
from training.evaluation.embeddings import (
    Subject,
    embeddings,
    of_log_mels,
    of_random_weights,
    subjects,
)

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def loudness(units: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.abs(units).mean(1, keepdims=True)


def never(units: NDArray[np.float32]) -> NDArray[np.float32]:
    raise AssertionError("the cache should have been read")


def subject(embed: Embed, key: str = "loudness") -> Subject:
    return Subject("a subject", key, embed, {})


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return tasks.load(table_of_folds(tmp_path / "clips"), 0.2)


def test_vectors_are_computed_once_and_in_the_order_of_the_clips(
    task: Task, tmp_path: Path
) -> None:
    first = embeddings(task, subject(loudness), tmp_path / "cache")
    np.testing.assert_array_equal(first, loudness(task.units()))
    again = embeddings(task, subject(never), tmp_path / "cache")
    np.testing.assert_array_equal(first, again)


def test_another_space_length_or_content_is_another_place_in_the_cache(
    task: Task, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    embeddings(task, subject(loudness), cache)
    embeddings(task, subject(loudness, "another"), cache)
    table = tmp_path / "clips" / "tones.csv"
    embeddings(tasks.load(table, 0.1), subject(loudness), cache)
    write_clip(tmp_path / "clips" / "tones" / "007.wav", clip("low", 99))
    embeddings(tasks.load(table, 0.2), subject(loudness), cache)
    assert len(list(cache.iterdir())) == 4


def test_a_torn_file_in_the_cache_is_computed_again(task: Task, tmp_path: Path) -> None:
    first = embeddings(task, subject(loudness), tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(embeddings(task, subject(loudness), tmp_path / "cache"), first)


def test_broken_files_are_an_error_or_are_told_also_from_the_cache(
    task: Task, tmp_path: Path
) -> None:
    (tmp_path / "clips" / "tones" / "003.wav").write_bytes(b"RIFF nothing")
    task = tasks.load(tmp_path / "clips" / "tones.csv", 0.2)
    with pytest.raises(TaskError, match=r"003\.wav cannot be decoded"):
        embeddings(task, subject(loudness), tmp_path / "cache")
    for embed in (loudness, never):
        broken: dict[int, str] = {}
        vectors = embeddings(task, subject(embed), tmp_path / "cache", broken)
        assert list(broken) == [3]
        assert np.flatnonzero(np.isnan(vectors).any(1)).tolist() == [3]
    with pytest.raises(TaskError, match=r"003\.wav cannot be decoded"):
        embeddings(task, subject(never), tmp_path / "cache")


def test_a_model_that_gives_no_numbers_is_refused(task: Task, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="not finite"):
        embeddings(task, subject(lambda units: loudness(units) * np.nan), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_model_file_gives_the_vectors_of_the_runtime(task: Task) -> None:
    (found,) = subjects([])
    units = task.units()[:2]
    expected = Encoder.open(DEFAULT_MODEL).embed_batch(list(units))
    np.testing.assert_allclose(found.embed(units), expected, rtol=1e-5, atol=1e-5)
    assert (found.name, found.about["space_id"]) == ("default", found.key)


def test_random_weights_follow_from_the_seed_and_change_no_global_numbers(task: Task) -> None:
    card = Encoder.open(DEFAULT_MODEL).card
    state = torch.get_rng_state()
    one, again, other = (
        of_random_weights(card, seed).embed(task.units()[:1]) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert (one == again).all()
    assert (one != other).any()


def test_log_mel_statistics_are_three_values_a_band(task: Task) -> None:
    vectors = of_log_mels().embed(task.units()[:3])
    assert vectors.shape == (3, 192)
    mean, deviation, most = np.split(vectors, 3, axis=1)
    assert (most >= mean).all()
    assert (deviation >= 0).all()


def test_models_side_by_side_have_different_names() -> None:
    found = subjects([DEFAULT_MODEL, DEFAULT_MODEL], untrained=True, log_mel=True)
    untrained = "untrained StridedConv, 512-d, layers"
    assert [s.name for s in found][2:] == [untrained, "log-mel statistics"]
    with pytest.raises(ModelFileError, match=r"no model file at gone\.onnx"):
        subjects([Path("gone.onnx")])
