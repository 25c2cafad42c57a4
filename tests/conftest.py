"""What all tests share: which of them run, and the small encoders as networks and model files."""

import shutil
from pathlib import Path

import pytest
import torch

from models.modelfile import Training
from models.nn.export import export
from models.nn.model import WaveformEncoder
from tests.networks import SMALL, small_network

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
