"""`viola.Client` beside a bare loop of requests, 32 in parallel, against a service that refuses.

    python benchmarks/client.py                    # starts a service with few places
    python benchmarks/client.py --files 2000 --parallel 32 --places 8

Says for each: files a second, files lost, refusals absorbed. The bare loop sends each file once, as
the first ten lines that anybody writes do; what is refused is lost. Both send the same clips.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import soundfile as sf

import viola


def main() -> None:
    """Measure both, one after the other, against one service."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--files", type=int, default=1000)
    arguments.add_argument("--seconds", type=float, default=2.0, help="of a clip")
    arguments.add_argument("--parallel", type=int, default=32)
    arguments.add_argument("--places", type=int, default=8, help="VIOLA_MAX_INFLIGHT")
    arguments.add_argument("--port", type=int, default=8123)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, service(given.port, given.places) as address:
        paths = clips(Path(folder), given.files, given.seconds)
        print("| | files a second | lost | refusals absorbed |\n|---|---|---|---|")
        row("a bare loop", *bare(address, paths, given.parallel))
        row("viola.Client", *ours(address, paths, given.parallel))


def bare(address: str, paths: list[Path], parallel: int) -> tuple[float, int, int, int]:
    """Each file is sent once."""
    with httpx.Client(base_url=address, timeout=120) as client:

        def send(path: Path) -> bool:
            headers = {"Content-Type": "application/octet-stream"}
            try:
                path_ = "/v1/audio/embeddings"
                answer = client.post(path_, content=path.read_bytes(), headers=headers)
            except httpx.TransportError:
                return False
            return answer.is_success

        started = time.perf_counter()
        with ThreadPoolExecutor(parallel) as threads:
            done = sum(threads.map(send, paths))
        return time.perf_counter() - started, done, len(paths) - done, 0


def ours(address: str, paths: list[Path], parallel: int) -> tuple[float, int, int, int]:
    """The same files as a batch of the client."""
    with viola.Client(address) as client:
        started = time.perf_counter()
        items = list(client.embed_many(paths, parallel=parallel))
        done = sum(item.answer is not None for item in items)
        return time.perf_counter() - started, done, len(paths) - done, client.refusals


def row(name: str, took_s: float, done: int, lost: int, refusals: int) -> None:
    """One line of the table."""
    print(f"| {name} | {done / took_s:.1f} | {lost} of {done + lost} | {refusals} |", flush=True)


def clips(folder: Path, n: int, seconds: float) -> list[Path]:
    """Short noises, each another one."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(n):
        file = io.BytesIO()
        noise = random.normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)
        sf.write(file, noise, 16_000, format="FLAC", subtype="PCM_16")
        paths.append(folder / f"{number:06}.flac")
        paths[-1].write_bytes(file.getvalue())
    return paths


@contextmanager
def service(port: int, places: int) -> Iterator[str]:
    """The service as it ships, in a process of its own, with few places."""
    command = [sys.executable, "-m", "viola", "serve", "--port", str(port)]
    env = {"VIOLA_MAX_INFLIGHT": str(places)}
    process = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                if httpx.get(f"{address}/readyz").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
