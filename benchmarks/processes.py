"""Servers as processes of their own: started, under load, and what they take."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile as sf

from models import audio
from models.audio import SAMPLE_RATE

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "samples"
SERVE = "import service.commands.serving, typer; typer.run(service.commands.serving.serve)"
FORMATS = {
    "WAV": ("WAV", "PCM_16"),
    "FLAC": ("FLAC", "PCM_16"),
    "MP3": ("MP3", "MPEG_LAYER_III"),
    "Opus": ("OGG", "OPUS"),
}


@contextmanager
def process(command: list[str], **environment: str) -> Iterator[tuple[int, int]]:
    """Start a server and wait until it is ready; yields its port and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    paths = {"PYTHONPATH": str(HERE.parent)}
    server = subprocess.Popen(
        [sys.executable, *command, "--port", str(port)], env=os.environ | paths | environment
    )
    try:
        wait_until_ready(port)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(30)


def wait_until_ready(port: int) -> None:
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.01)


def viola(**settings: object) -> Any:
    environment = {f"VIOLA_{name.upper()}": str(value) for name, value in settings.items()}
    return process(["-c", SERVE, "--log-level", "warning"], **environment)


def load(port: int, path: str, seconds: float, **how: object) -> dict[str, Any]:
    """Load a service by `load.py`, in a process of its own; returns what that has measured."""
    asked = json.dumps({"port": port, "path": path, "seconds": seconds} | how)
    run = subprocess.run(
        [sys.executable, HERE / "load.py"],
        input=asked,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def recording(folder: Path, seconds: float, name: str = "WAV") -> Path:
    """The samples one after the other until they fill `seconds`, written in blocks."""
    kind, subtype = FORMATS[name]
    path = folder / f"{seconds:g}s.{name.lower()}"
    if not path.exists():
        clips = np.concatenate([audio.decode(clip) for clip in sorted(SAMPLES.glob("*.opus"))])
        left = round(seconds * SAMPLE_RATE)
        with sf.SoundFile(path, "w", SAMPLE_RATE, 1, subtype, format=kind) as out:
            while left > 0:
                for first in range(0, min(left, len(clips)), 4_000):
                    out.write(clips[first : min(first + 4_000, left, len(clips))])
                left -= len(clips)
    return path


def cpu_s(pid: int) -> float:
    """CPU time of a service and its decoders, the client's not included."""
    ticks = 0
    for one in (pid, *children_of(pid), *decoders(pid)):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """Highest RSS of a process and of its children together."""
    peaks, stop = [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peaks[0] = max(peaks[0], resident_mb(pid))
            peaks[1] = max(peaks[1], children_mb(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def children_of(pid: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def decoders(service: int) -> list[int]:
    """The decoders of a service, which its child, the fork server, has forked."""
    return [pid for parent in children_of(service) for pid in children_of(parent)]


def children_mb(service: int) -> float:
    """RSS of the children of a service, and what its decoders do not share with them."""
    own = _program(service)
    # A child that is not yet another program shares the memory of its parent
    apart = [child for child in children_of(service) if _program(child) != own]
    return sum(map(resident_mb, apart)) + sum(map(private_mb, decoders(service)))


def private_mb(pid: int) -> float:
    """The memory that a process shares with no other."""
    with suppress(OSError):
        found = re.findall(r"Private_\w+:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
        return sum(map(int, found)) * 1024 / 1e6
    return 0.0


def _program(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
