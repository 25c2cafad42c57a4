import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imsave
from rich.console import Console

from tests.training.stores import write_noise
from training import pictures
from training.data.corpus import Corpus


@pytest.fixture
def quiet() -> Console:
    """A console that shows nothing."""
    return Console(quiet=True)


@pytest.fixture(scope="session")
def pixel() -> bytes:
    """The smallest picture, a PNG file."""
    file = io.BytesIO()
    imsave(file, np.zeros((1, 1)), format="png")
    return file.getvalue()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch, pixel: bytes) -> None:
    """Runs with empty pictures: drawing them takes longer than the steps of most tests."""
    monkeypatch.setattr(pictures, "curve", lambda drawing: b"")
    monkeypatch.setattr(pictures, "views", lambda stages: pixel)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of noise and a tone, 0.4 to 2.2 s."""
    return write_noise(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def corpus(store: Path) -> Corpus:
    return Corpus(store)
