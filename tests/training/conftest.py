from pathlib import Path

import pytest
from rich.console import Console

from tests.training.stores import write_noise
from training import pictures
from training.data.corpus import Corpus


@pytest.fixture
def quiet() -> Console:
    """A console that shows nothing."""
    return Console(quiet=True)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with empty pictures: drawing curves takes longer than the runs of most tests."""
    monkeypatch.setattr(pictures, "curve", lambda drawing: b"")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of noise and a tone, 0.4 to 2.2 s."""
    return write_noise(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def corpus(store: Path) -> Corpus:
    return Corpus(store)
