"""The five things that a newcomer wants to do, from a fresh clone, timed: wall and CPU seconds.

    python benchmarks/newcomer.py FOLDER          # an empty folder that everything is done in

The commands are those of the README. CPU seconds tell what it takes where nothing else runs; the
packages come from where pip finds them, so their download is in the wall seconds alone.
"""

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile as sf

ROOT = Path(__file__).parent.parent
RATE = 16_000
KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "beep": lambda t, rng: np.sin(2 * np.pi * rng.uniform(300, 1500) * t),
    "hiss": lambda t, rng: rng.standard_normal(len(t)),
    "sweep": lambda t, rng: np.sin(2 * np.pi * (300 * t + rng.uniform(500, 2000) * t**2)),
    "buzz": lambda t, rng: np.sign(np.sin(2 * np.pi * rng.uniform(80, 200) * t)),
    "tremolo": lambda t, rng: (
        np.sin(2 * np.pi * 600 * t) * (1 + np.sin(2 * np.pi * rng.uniform(3, 8) * t))
    ),
    "clicks": lambda t, rng: np.maximum(0, np.sin(2 * np.pi * rng.uniform(4, 12) * t)) ** 200,
}


def sounds(folder: Path) -> None:
    """84 clips in six class folders, as somebody who comes with recordings has them."""
    rng = np.random.default_rng(0)
    for name, kind in KINDS.items():
        (folder / name).mkdir(parents=True)
        for number in range(14):
            samples = kind(np.arange(int(RATE * rng.uniform(0.8, 2.0))) / RATE, rng)
            samples = samples / np.abs(samples).max() * rng.uniform(0.1, 0.8)
            noisy = samples + 0.01 * rng.standard_normal(len(samples))
            sf.write(folder / name / f"{number:02d}.wav", noisy, RATE)


class Clock:
    """Prints a row of the table for each step."""

    def __init__(self) -> None:
        print("| step | wall s | CPU s |\n|---|---:|---:|", flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside, in child processes that have ended by then."""
        wall, cpu = time.monotonic(), _cpu_s()
        yield
        spent = time.monotonic() - wall, _cpu_s() - cpu
        print(f"| {name} | {spent[0]:.0f} | {spent[1]:.0f} |", flush=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(*words: object, cwd: Path, **env: str) -> str:
    """A command, whose failure ends it all."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=os.environ | env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def serving(clone: Path, port: int, *command: object, **env: str) -> Iterator[None]:
    """A service that is ready, and ends with the block."""
    words = [str(word) for word in command]
    log = subprocess.DEVNULL
    env = os.environ | {"VIOLA_PORT": str(port)} | env
    service = subprocess.Popen(words, cwd=clone, env=env, stdout=log, stderr=log)
    ready = ["curl", "-sf", f"http://127.0.0.1:{port}/readyz"]
    while subprocess.run(ready, capture_output=True, check=False).returncode:
        if service.poll() is not None:
            sys.exit(f"{words} ended")
        time.sleep(0.2)
    try:
        yield
    finally:
        service.terminate()
        service.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    clone, viola, port = folder / "viola", ".venv/bin/viola", free_port()
    for old in (clone, folder / "fit"):
        shutil.rmtree(old, ignore_errors=True)
    clock, url = Clock(), f"http://127.0.0.1:{port}/v1/audio/embeddings"
    run("git", "clone", "-q", ROOT, clone, cwd=folder)
    sounds(clone / "my_sounds")
    name = "1. embed over HTTP: `make serve`, `curl`"
    with clock.step(name), serving(clone, port, "make", "serve"):
        run("curl", "-sf", "-F", "file=@samples/speech.opus", url, cwd=clone)
    with clock.step("2. a classifier: `viola fit`, `viola classify`"):
        run(viola, "fit", "my_sounds/", "-o", "mine.onnx", cwd=clone)
        run(viola, "classify", "my_sounds/", "--head", "mine.onnx", cwd=clone)
    with clock.step("3. similar sounds: `viola index`, `viola search`"):
        run(viola, "index", "my_sounds/", "-o", "data", cwd=clone)
        run(viola, "search", "my_sounds/buzz/00.wav", "--data", "data", cwd=clone)
    with clock.step("4. a tiny encoder: `make train`"):
        run("make", "train", cwd=clone)
    with clock.step("4. ... `viola prepare`, `train tiny`, `export`"):
        run(viola, "prepare", "my_sounds/", "stores/mine", cwd=clone)
        run(viola, "train", "tiny", "--store", "stores/mine", "--out", "runs/mine", cwd=clone)
        run(viola, "export", "runs/mine/checkpoint.pt", "-o", "tiny.onnx", cwd=clone)
    with clock.step("5. deploy: `viola key`, `viola serve` with keys"):
        (clone / "keys.txt").write_text(run(viola, "key", "web", cwd=clone))
        with serving(clone, port, viola, "serve", VIOLA_API_KEYS_FILE="keys.txt"):
            pass
    with clock.step("an environment for `viola fit` alone"):
        run(sys.executable, "-m", "venv", folder / "fit", cwd=clone)
        pip = [folder / "fit/bin/pip", "install", "--quiet", "--no-compile"]
        run(*pip, "--constraint", "constraints.txt", ".[fit]", cwd=clone)
    print("\nMB:", run("du", "-sm", folder / "fit", clone / ".venv", cwd=folder))


if __name__ == "__main__":
    main()
