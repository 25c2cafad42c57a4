"""The files that ship."""

from pathlib import Path

import pytest

from models.classifier import Classifier
from models.modelfile import DEFAULT_MODEL, PRETRAINED, open_session

HEADS = sorted(path for path in PRETRAINED.glob("*.onnx") if path != DEFAULT_MODEL)
MAX_BYTES = 4 * 2**20


def test_the_classifiers_that_ship_are_there() -> None:
    assert {"sounds-10", "spoken-digits"} <= {path.stem for path in HEADS}


@pytest.mark.parametrize("path", HEADS, ids=lambda path: path.stem)
def test_a_classifier_that_ships_fits_the_default_encoder(path: Path) -> None:
    head, encoder = Classifier.open(path), open_session(DEFAULT_MODEL)[1]
    head.check_space(encoder.space_id, encoder.name)  # else: make pretrained-heads
    assert head.self_test() < 1e-4
    assert path.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("path", HEADS, ids=lambda path: path.stem)
def test_a_classifier_that_ships_names_its_sources_and_licences(path: Path) -> None:
    card = Classifier.open(path).card
    assert card.description
    assert card.licence.startswith("CC")
    assert all(source.licence for source in card.training.sources)
