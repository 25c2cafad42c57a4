import copy
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from models import classifier, modelfile
from models.classifier import Classifier, ClassifierCard, reference_embedding
from models.modelfile import ModelFileError, WrongKindError
from models.runtime import Encoder
from tests.heads import GRAPH, LABELS, write_head

FIXED = GRAPH.replace("dim]", "4]").replace("classes]", "3]")


@pytest.fixture
def head(tmp_path: Path) -> Classifier:
    return Classifier.open(write_head(tmp_path / "pitch.onnx"))


def embeddings(n: int, dim: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (n, dim)).astype(np.float32)


def test_a_prediction_holds_probabilities_logits_and_novelty(head: Classifier) -> None:
    x = embeddings(5)
    found = head.predict(x)
    assert found.probabilities.shape == found.logits.shape == (5, len(LABELS))
    assert found.novelty.shape == (5,)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.logits, 40 * x[:, :3], atol=1e-5)


def test_a_prediction_does_not_depend_on_the_batch(
    head: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = embeddings(7)
    whole = head.predict(x)
    monkeypatch.setattr(classifier, "BATCH", 3)
    parts = head.predict(x)
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-6)
    np.testing.assert_allclose(parts.novelty, whole.novelty, atol=1e-6)


def test_a_copy_and_a_pickle_open_the_same_file_again(
    head: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for opened in (Classifier.open("pitch.onnx"), Encoder.open(threads=1)):
        again = pickle.loads(pickle.dumps(copy.deepcopy(opened)))
        assert again.card == opened.card
        assert again.self_test() < 1e-4
    kept = pickle.dumps(head)
    write_head(tmp_path / "pitch.onnx", space_id="space-of-another")
    with pytest.raises(ModelFileError, match="the model pitch has changed since it was opened"):
        pickle.loads(kept)
    unsaved = Classifier.of_bytes((tmp_path / "pitch.onnx").read_bytes(), "unsaved")
    with pytest.raises(TypeError, match=r"use Classifier\.open"):
        copy.copy(unsaved)


def test_no_embedding_gives_no_prediction(head: Classifier) -> None:
    found = head.predict(embeddings(0))
    assert found.probabilities.shape == (0, len(LABELS))
    assert found.novelty.shape == (0,)


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 4)])
def test_embeddings_of_another_size_are_refused(head: Classifier, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 4\)"):
        head.predict(np.zeros(shape, np.float32))


def test_an_encoder_of_another_space_is_refused_by_naming_both(head: Classifier) -> None:
    head.check_space("space-of-tiny", "tiny")
    with pytest.raises(ModelFileError, match="space space-of-tiny; other computes space va1-0"):
        head.check_space("va1-0", "other")


def test_the_golden_scores_are_reproduced(head: Classifier) -> None:
    assert head.self_test() < 1e-5


@pytest.mark.parametrize("scale", [1.01, np.nan])
def test_other_golden_scores_are_refused(tmp_path: Path, scale: float) -> None:
    head = Classifier.open(write_head(tmp_path / "off.onnx", golden_scale=scale))
    with pytest.raises(ModelFileError, match="off its golden scores"):
        head.self_test()


def test_the_reference_embedding_has_the_mean_and_deviation_asked_for() -> None:
    x = reference_embedding(3072, offset=2.0, scale=3.0)
    assert x.mean() == pytest.approx(2.0, abs=0.02)
    assert x.std() == pytest.approx(3.0, abs=0.02)
    assert len(set(x.tolist())) > 3000


def test_an_encoder_is_no_classifier_and_a_classifier_no_encoder(
    model_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(WrongKindError, match="kind encoder; expected kind classifier") as caught:
        Classifier.open(model_path)
    assert caught.value.kind == "encoder"
    again = pickle.loads(pickle.dumps(caught.value))  # from a worker process to its parent
    assert (str(again), again.kind) == (str(caught.value), "encoder")
    with pytest.raises(WrongKindError, match="kind classifier; expected kind encoder"):
        Encoder.open(write_head(tmp_path / "pitch.onnx"))


def test_a_graph_without_novelty_is_refused(tmp_path: Path) -> None:
    path = write_head(tmp_path / "pitch.onnx")
    proto = onnx.load(path)
    del proto.graph.output[2]
    modelfile.write(proto, Classifier.open(path).card, path)
    with pytest.raises(ModelFileError, match="of kind classifier, it has inputs"):
        Classifier.open(path)


def test_a_graph_with_other_sizes_than_its_card_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    card = Classifier.open(write_head(path, graph=FIXED)).card
    for change, told in (
        ({"labels": ["a", "b"]}, "3 values in its tensor probabilities, its card says 2"),
        ({"embed_dim": 7}, "4 values in its tensor embedding, its card says 7"),
    ):
        modelfile.write(onnx.load(path), card.model_copy(update=change), path)
        with pytest.raises(ModelFileError, match=told):
            Classifier.open(path)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["a", "a", "b"]},
        {"thresholds": [0.5, 0.5, 0.5]},
        {"multi_label": True},
        {"labels": []},
        {"novelty": {"method": "distance", "threshold": np.nan, "passing": 0.95}},
    ],
)
def test_a_card_that_contradicts_itself_is_refused(head: Classifier, change: dict) -> None:
    with pytest.raises(ValidationError):
        ClassifierCard.model_validate(head.card.model_dump() | change)


def test_a_card_survives_its_json(head: Classifier) -> None:
    assert ClassifierCard.model_validate_json(head.card.model_dump_json()) == head.card


def test_whatever_holds_numbers_is_classified_and_nothing_else(head: Classifier) -> None:
    expected = head.predict(embeddings(2)).probabilities
    for given in (embeddings(2).tolist(), embeddings(2).astype(float)):
        np.testing.assert_allclose(head.predict(given).probabilities, expected, atol=1e-6)
    for wrong in (None, "a", [[1.0], [1.0, 2.0]], np.full((1, 4), np.nan), [1.0] * 4):
        with pytest.raises(ValueError, match="embeddings"):
            head.predict(wrong)  # type: ignore[arg-type]


def test_a_number_too_large_for_float32_makes_no_noise(head: Classifier) -> None:
    with pytest.raises(ValueError, match="not all finite"):
        head.predict(np.full((1, head.card.embed_dim), 1e300))


def test_a_classifier_of_another_space_is_told_with_those_that_fit() -> None:
    space_id = Classifier.open("sounds-10-int8").card.space_id
    with pytest.raises(ModelFileError, match="use sounds-10-int8, which ships and fits mine, or"):
        Classifier.open().check_space(space_id, "mine")
