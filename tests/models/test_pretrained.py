"""The files that ship."""

from pathlib import Path

import pytest

from models.classifier import Classifier
from models.modelfile import DEFAULT_MODEL, PRETRAINED, golden_tolerance, open_session
from models.runtime import Encoder

INT8_MODEL = PRETRAINED / "default-int8.onnx"
ENCODERS = (DEFAULT_MODEL, INT8_MODEL)
HEADS = sorted(path for path in PRETRAINED.glob("*.onnx") if path not in ENCODERS)
MAX_BYTES = 4 * 2**20


def test_the_classifiers_that_ship_are_there() -> None:
    names = {"sound-kinds", "sounds-10", "spoken-digits", "sounds-10-int8"}
    assert names <= {path.stem for path in HEADS}


def test_the_default_encoder_in_eight_bits_was_made_from_the_one_that_ships() -> None:
    encoder, original = Encoder.open(INT8_MODEL), open_session(DEFAULT_MODEL)[1]
    made = encoder.card.quantization
    assert made is not None
    assert made.space_id == original.space_id  # else: make pretrained-int8, then pretrained-heads
    assert made.weight_bits == 7
    assert made.cosine_min > 0.99  # the readout also scales up what rounding adds
    assert set(made.sources) <= {source.name for source in original.training.sources}
    assert encoder.self_test() <= golden_tolerance(encoder.card)
    saved = DEFAULT_MODEL.stat().st_size - INT8_MODEL.stat().st_size
    assert saved > 2.5e6  # of 3.5 MB of weights; the projection is not put into eight bits


def test_the_default_encoder_is_small() -> None:
    assert DEFAULT_MODEL.stat().st_size <= 16 * 2**20


@pytest.mark.parametrize("path", HEADS, ids=lambda path: path.stem)
def test_a_classifier_that_ships_fits_its_encoder(path: Path) -> None:
    model = INT8_MODEL if path.stem.endswith("-int8") else DEFAULT_MODEL
    head, encoder = Classifier.open(path), open_session(model)[1]
    head.check_space(encoder.space_id, encoder.name)  # else: make pretrained-heads
    assert head.self_test() < 1e-4
    assert path.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("path", HEADS, ids=lambda path: path.stem)
def test_a_classifier_that_ships_names_its_sources_and_licences(path: Path) -> None:
    card = Classifier.open(path).card
    assert card.description
    assert card.licence.startswith("CC")
    assert all(source.licence for source in card.training.sources)
