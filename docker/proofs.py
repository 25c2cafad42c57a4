"""What a container answers: how soon, with which vectors, from which formats."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import pyarrow as pa
import soundfile as sf
from numpy.typing import NDArray

import viola
from docker.engine import Engine, EngineError, Serving
from docker.table import Table
from models.audio import SAMPLE_RATE
from models.modelfile import DEFAULT_MODEL, GOLDEN_TOLERANCE, reference_signal
from models.runtime import Encoder

SAMPLES = sorted((Path(__file__).resolve().parent.parent / "samples").glob("*.opus"))
EMBEDDINGS = "/v1/audio/embeddings"
MAX_DIFFERENCE = 1e-4  # of the vector's largest element; kernels of other processors differ
STARTS = 5
READY_S = 60
DRAIN_DELAY_S = 2

Vector = NDArray[np.float32]


def ask(
    port: int, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream"
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        connection.request(method, path, body or None, {"Content-Type": kind} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def served(engine: Engine, tag: str) -> Iterator[Serving]:
    """The image's own command, ready, on a port where nothing else can answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    env = {
        "VIOLA_DATA": "/tmp/data",
        "VIOLA_DRAIN_DELAY_S": str(DRAIN_DELAY_S),
        "VIOLA_LOG_LEVEL": "error",
    }
    with engine.serving(tag, port, env) as container:
        _wait_until_ready(container)
        yield container


def measure_starts(engine: Engine, tag: str, table: Table) -> None:
    """Seconds from the engine's start to `/readyz`, and the memory then held."""
    seconds = []
    for _ in range(STARTS):
        started = time.monotonic()
        with served(engine, tag) as container:
            seconds.append(time.monotonic() - started)
            resident = container.resident_bytes()
    spread = f"{median(seconds):.2f} s [{min(seconds):.2f}, {max(seconds):.2f}] of {STARTS}"
    table.figure("cold start to ready", spread)
    table.figure("memory when ready, with decoders", _resident(resident))


def compare_vectors(port: int, table: Table) -> None:
    """The golden vector, and those of real files, against what is computed outside."""
    encoder = Encoder.open(DEFAULT_MODEL)
    golden = encoder.card.golden.vector()
    error = _difference(_embedded(port, _wav(reference_signal()), "audio/wav"), golden)
    table.proof("golden vector over HTTP", f"{error:.1e} off", error <= GOLDEN_TOLERANCE)
    for path in SAMPLES:
        error = _difference(_embedded(port, path.read_bytes(), "audio/ogg"), encoder.embed(path))
        table.proof(f"{path.name}, against outside", f"{error:.1e} off", error <= MAX_DIFFERENCE)


def read_formats(port: int, table: Table) -> None:
    """What only some of the packages do: m4a in, Arrow out, labels."""
    signal = reference_signal()
    expected = _embedded(port, _wav(signal), "audio/wav")
    found = _embedded(port, _m4a(signal), "audio/mp4")
    cosine = float(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
    table.proof("m4a (AAC), cosine to WAV", f"{cosine:.4f}", cosine > 0.9)
    status, content = ask(port, "POST", f"{EMBEDDINGS}?output=arrow", _wav(signal), "audio/wav")
    rows = pa.ipc.open_stream(content).read_all().num_rows if status == 200 else 0
    table.proof("Arrow out", f"{status}, {rows} row", rows == 1)
    body = SAMPLES[0].read_bytes()
    status, content = ask(port, "POST", "/v1/audio/classifications", body, "audio/ogg")
    label = _json(content)["data"][0]["predictions"][0]["label"] if status == 200 else ""
    table.proof("classification", f"{status}, {label}", status == 200)


def teach(port: int, table: Table) -> None:
    """From files to a classifier of the names of the samples: stored, searched, learnt, used."""
    with viola.Client(f"http://127.0.0.1:{port}") as client:
        mine = client.collection("mine")
        mine.make(window_s=0.4, hop_s=0.1)
        for path in SAMPLES:
            mine.label(mine.add(path).id, path.stem)
        hits = mine.search(SAMPLES[0], top_k=1)
        table.proof("search", hits[0].file, hits[0].file == SAMPLES[0].name)
        client.teach("my-sounds", collection="mine")
        found = [client.classify(path, head="my-sounds").best for path in SAMPLES]
    labels = [best.label if best else "" for best in found]
    expected = [path.stem for path in SAMPLES]
    table.proof("a classifier that was taught", ", ".join(labels), labels == expected)


def check_health(engine: Engine, tag: str, port: int, table: Table) -> None:
    """Run the image's health check beside the service, and where nothing listens."""
    command = engine.config(tag).healthcheck
    codes = [
        engine.run(tag, command, {"VIOLA_PORT": str(asked)}, "host").returncode
        for asked in (port, 1)
    ]
    table.proof("health check: ready, nobody there", codes, codes[0] == 0 and codes[1] == 1)


def _wait_until_ready(container: Serving) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if container.process.poll() is not None:
            raise EngineError(f"the container ended with {container.process.returncode}")
        try:
            if ask(container.port, "GET", "/readyz")[0] == 200:
                return
        except (OSError, HTTPException):
            pass
        time.sleep(0.02)
    raise EngineError(f"not ready after {READY_S} s")


def _embedded(port: int, body: bytes, kind: str) -> Vector:
    status, content = ask(port, "POST", EMBEDDINGS, body, kind)
    if status != 200:
        raise EngineError(f"a file was answered with {status}: {content.decode(errors='replace')}")
    return np.array(_json(content)["data"][0]["embedding"], np.float32)


def _difference(found: Vector, expected: Vector) -> float:
    """Largest difference, relative to the largest element."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _wav(signal: Vector) -> bytes:
    file = BytesIO()
    sf.write(file, signal, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def _m4a(signal: Vector) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(signal[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for part in (frame, None):
            container.mux(stream.encode(part))
    return file.getvalue()


def _resident(n_bytes: int | None) -> str:
    return "not to be seen from here" if n_bytes is None else f"{n_bytes / 1e6:.0f} MB"


def _json(content: bytes) -> Any:
    return json.loads(content)
