"""A model of a dozen ONNX nodes, signals made on the spot, and the service around them."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnx.parser
import pytest
import soundfile as sf
import structlog
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from onnx import numpy_helper

from models import modelfile
from models.audio import SAMPLE_RATE
from models.card import Card, Golden, Training
from models.runtime import Encoder
from service.app import create_app
from service.audio import decoder
from service.audio.forks import ForkServer
from service.settings import Settings
from service.telemetry import logs
from service.traffic.connections import bounded_protocol
from service.traffic.sockets import bounded_socket

Serve = Callable[..., AbstractContextManager[httpx.Client]]

EMBED_DIM = 4
FRAME_HOP = 160

# Frames of 10 ms, each the products with four filters; the vector is their maximum plus their mean
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
tiny (float[batch, samples] waveform, int64[batch] length)
    => (float[batch, 4] embedding, float[batch, frames, 4] frames)
<int64[1] one = {1}, int64[1] two = {2}, int64 hop = {160}, int64 zero = {0}, int64 step = {1},
 float nothing = {0.0}, float lowest = {-1e30}>
{
    channel = Unsqueeze (waveform, one)
    products = Conv <strides = [160]> (channel, filters)
    frames = Transpose <perm = [0, 2, 1]> (products)
    n_valid = Div (length, hop)
    shape = Shape (frames)
    n_frames = Gather (shape, step)
    index = Range (zero, n_frames, step)
    n_valid_column = Unsqueeze (n_valid, one)
    is_valid = Less (index, n_valid_column)
    mask = Unsqueeze (is_valid, two)
    for_maximum = Where (mask, frames, lowest)
    maximum = ReduceMax <keepdims = 0> (for_maximum, one)
    for_sum = Where (mask, frames, nothing)
    sum = ReduceSum <keepdims = 0> (for_sum, one)
    count = Cast <to = 1> (n_valid_column)
    mean = Div (sum, count)
    embedding = Add (maximum, mean)
}
"""
NEGATIVE = GRAPH.replace(
    "frames = Transpose <perm = [0, 2, 1]> (products)",
    "negative = Neg (products)\n    frames = Transpose <perm = [0, 2, 1]> (negative)",
)
"""The same of other vectors."""


def write_model(
    path: Path, name: str = "tiny", *, golden_scale: float = 1.0, graph: str = GRAPH
) -> Path:
    """Write the tiny encoder; a `golden_scale` other than 1 makes its golden vector wrong."""
    proto = onnx.parser.parse_model(graph)
    time = np.arange(FRAME_HOP) / SAMPLE_RATE
    filters = [np.cos(2 * np.pi * 100 * 2**k * time) / FRAME_HOP for k in range(EMBED_DIM)]
    weights = np.array(filters, np.float32)[:, None]
    proto.graph.initializer.append(numpy_helper.from_array(weights, "filters"))
    modelfile.write(proto, _card(name, np.ones(EMBED_DIM, np.float32)), path)
    vector = Encoder.open(path, threads=1).embed(modelfile.reference_signal())
    modelfile.write(proto, _card(name, vector * np.float32(golden_scale)), path)
    return path


def _card(name: str, golden: NDArray[np.float32]) -> Card:
    return Card(
        name=name,
        encoder="tiny",
        embed_dim=EMBED_DIM,
        frame_hop=FRAME_HOP,
        frame_offset=0,
        receptive_field=FRAME_HOP,
        min_samples=FRAME_HOP,
        mean=0.0,
        std=1.0,
        space_id="space-of-" + name,
        training=Training(method="none"),
        golden=Golden.of(golden),
    )


def tone(
    seconds: float = 1.0, *, hz: float = 440.0, rate: int = SAMPLE_RATE
) -> NDArray[np.float32]:
    """A sine, (S,)."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def encoded(samples: NDArray[Any], *, rate: int = SAMPLE_RATE, kind: str = "WAV") -> bytes:
    """Samples (S,) or (S, channels) as a file: 16-bit, or float where they are NaN or loud."""
    subtype = "FLOAT" if kind == "WAV" and not np.abs(samples).max(initial=0) <= 1 else "PCM_16"
    file = io.BytesIO()
    sf.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    """Log lines go nowhere unless a test captures them, after a command in this process as well."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "configure", lambda level: None)
        yield


class Lent:
    """The fork server of all services of a process of tests: none of them ends it."""

    forks: ForkServer | None = None
    lock = threading.Lock()

    def __init__(self) -> None:
        if Lent.forks is None:
            Lent.forks = ForkServer()
            Lent.forks.wait(30)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.forks, name)

    def is_ready(self) -> bool:
        assert self.forks is not None
        with self.lock:  # of services in threads of their own
            return self.forks.is_ready()

    def close(self) -> None:
        """Leave it to the next service."""


@pytest.fixture(scope="session", autouse=True)
def one_fork_server() -> Iterator[None]:
    """A service starts in a third of the time, and of the CPU time, where one is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "ForkServer", Lent)
        yield
    if Lent.forks is not None:
        Lent.forks.close()
        Lent.forks = None


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="session")
def encoder(model_file: Path) -> Encoder:
    return Encoder.open(model_file, threads=1)


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for what the service does after it has answered; looking takes a tenth of the time."""
    asked_at = time.monotonic()
    deadline = asked_at + timeout_s
    while not condition():
        now = time.monotonic()
        assert now < deadline, "waited in vain"
        time.sleep(min(max(0.01, 9 * (now - asked_at)), 0.1))
        asked_at = time.monotonic()


@contextmanager
def serving(
    settings: Settings, make_app: Callable[[Settings], FastAPI] = create_app
) -> Iterator[httpx.Client]:
    """The service behind a real socket, in a thread of this process."""
    config = uvicorn.Config(
        make_app(settings),
        port=0,
        log_config=None,
        access_log=False,
        http=bounded_protocol(settings.head_timeout_s, max_connections=settings.max_connections),
        ws=bounded_socket(settings.idle_timeout_s),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serve(model_file: Path) -> Serve:
    """Start the service with the settings given."""

    def start(**settings: Any) -> AbstractContextManager[httpx.Client]:
        return serving(Settings(**({"models": model_file, "threads": 1} | settings)))

    return start


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture(scope="session")
def client(serve: Serve) -> Iterator[httpx.Client]:
    """The service as it is with default limits."""
    with serve() as client:
        yield client
