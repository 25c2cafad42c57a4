"""What embedding costs in memory and time, against bare ONNX Runtime and against librosa + PyTorch.

    python benchmarks/embedding.py [--model NAME.onnx] [--rounds 10] [--threads N]

The recordings are made of the clips in samples/, repeated. Four tables:
1. `viola embed` on one minute and on one hour of WAV: peak resident memory, speed.
2. Ten minutes through `Encoder.embed` against the session alone on tiles cut beforehand.
3. Clips of 1 s and 10 s from WAV files, one at a time, against librosa's log-mel and PyTorch.
4. Resident memory of a process that embeds batches of clips of random lengths.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import librosa
import numpy as np
import soundfile as sf
import torch
from timing import interleaved, spread

from models import audio
from models.audio import SAMPLE_RATE
from models.modelfile import DEFAULT_MODEL
from models.nn.encoder import AudioNTT2022
from models.nn.frontend import EPS, HOP_LENGTH, N_FFT, mel_filters
from models.nn.pooling import MaxMeanPool
from models.runtime import Encoder, available_cpus
from models.tiles import TILE_S

SAMPLES = Path(__file__).parent.parent / "samples"


def recording(seconds: float) -> np.ndarray:
    """The samples one after the other until they fill `seconds`."""
    clips = np.concatenate([audio.decode(path) for path in sorted(SAMPLES.glob("*.opus"))])
    n_samples = round(seconds * SAMPLE_RATE)
    return np.tile(clips, n_samples // len(clips) + 1)[:n_samples]


def write(folder: Path, seconds: float) -> Path:
    """The recording as a 16-bit WAV file."""
    path = folder / f"{seconds:g}s.wav"
    sf.write(path, recording(seconds), SAMPLE_RATE, subtype="PCM_16")
    return path


def memory(model: Path, folder: Path, threads: int) -> None:
    """Run the command on a minute and on an hour."""
    print("\n1. viola embed, one WAV file")
    print(f"{'length':>10} {'peak RSS, MB':>14} {'seconds':>9} {'x real time':>12}")
    peaks = []
    for seconds in (60, 3600):
        path = write(folder, seconds)
        out = folder / f"{seconds}s.npy"
        command = ["viola", "embed", path, "-o", out, "--model", model, "--threads", threads]
        program = (
            "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
        )
        command[0] = str(Path(sys.executable).with_name("viola"))
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-c", program, *map(str, command)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        elapsed = time.perf_counter() - start
        peaks.append(int(run.stdout) / 1024)
        print(f"{seconds:>8} s {peaks[-1]:14.0f} {elapsed:9.1f} {seconds / elapsed:12.0f}")
    print(f"an hour takes {peaks[1] - peaks[0]:+.0f} MB against a minute")


def throughput(encoder: Encoder, folder: Path, rounds: int) -> None:
    """Files and samples through our runtime against the session alone, on ten minutes."""
    path = write(folder, 600)
    samples = audio.decode(path)
    size = round(TILE_S * SAMPLE_RATE)
    tiles = [samples[first : first + size] for first in range(0, len(samples) - size + 1, size)]
    length = np.array([size], np.int64)

    def bare() -> None:
        for tile in tiles:
            encoder._session.run(["embedding"], {"waveform": tile[None], "length": length})

    calls = {
        "ONNX Runtime alone, tiles cut": bare,
        "Encoder.embed, samples": lambda: encoder.embed(samples),
        "Encoder.embed, WAV file": lambda: encoder.embed(path),
    }
    times = interleaved(calls, rounds)
    seconds = {name: len(samples) / SAMPLE_RATE for name in calls}
    seconds["ONNX Runtime alone, tiles cut"] = len(tiles) * size / SAMPLE_RATE
    rates = {name: [seconds[name] / t for t in values] for name, values in times.items()}
    print(f"\n2. ten minutes in tiles of {TILE_S:g} s, audio seconds per second, {rounds} rounds")
    bare_rate = median(rates["ONNX Runtime alone, tiles cut"])
    for name, values in rates.items():
        share = median(values) / bare_rate
        print(f"{name:32} {spread(values, digits=0):>24} {100 * share:6.1f} % of bare")


def authors_way(encoder: Encoder, folder: Path, rounds: int) -> None:
    """AudioNTT2022 in PyTorch behind librosa's log-mel: weights do not change the time."""
    card = encoder.card
    network, pool = AudioNTT2022().eval(), MaxMeanPool()
    filters = mel_filters()

    def theirs(path: Path) -> np.ndarray:
        samples, _ = librosa.load(path, sr=SAMPLE_RATE)
        spectrum = librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH, pad_mode="reflect")
        log_mel = np.log(filters @ np.abs(spectrum) ** 2 + EPS)
        normalized = torch.from_numpy((log_mel - card.mean) / card.std)
        with torch.inference_mode():
            vector: np.ndarray = pool(network(normalized[None, None]))[0].numpy()
        return vector

    print(f"\n3. one clip at a time from a WAV file to a vector, {rounds * 10} rounds")
    print(f"{'clip':>6} {'librosa + PyTorch, ms':>26} {'Viola, ms':>24} {'ratio':>7}")
    for seconds in (1, 10):
        path = write(folder, seconds)
        calls = {"theirs": partial(theirs, path), "ours": partial(encoder.embed, path)}
        times = interleaved(calls, rounds * 10)
        ratio = median(times["theirs"]) / median(times["ours"])
        columns = f"{spread(times['theirs'], 1000):>26} {spread(times['ours'], 1000):>24}"
        print(f"{seconds:>4} s {columns} {ratio:7.2f}")


def soak(model: Path, threads: int) -> None:
    """Memory of a fresh process after more and more lengths that it has never seen."""
    program = """
import sys, numpy as np
from models.runtime import Encoder
encoder = Encoder.open(sys.argv[1], threads=int(sys.argv[2]))
rng = np.random.default_rng(0)
for batch in range(1, 401):
    lengths = rng.integers(400, 200_000, 5)
    encoder.embed_batch([rng.normal(0, 0.1, n).astype(np.float32) for n in lengths])
    if batch in (25, 50, 100, 200, 400):
        pages = int(open("/proc/self/statm").read().split()[1])
        print(f"{5 * batch:>10} {pages * 4096 / 1e6:10.0f}", flush=True)
"""
    print("\n4. clips of 0.025 s to 12.5 s, in batches of 5")
    print(f"{'clips':>10} {'RSS, MB':>10}", flush=True)
    subprocess.run([sys.executable, "-c", program, str(model), str(threads)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=available_cpus())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    encoder = Encoder.open(arguments.model, threads=arguments.threads)
    print(f"{encoder.card.name}: {encoder.card.encoder}, {arguments.threads} threads")
    with tempfile.TemporaryDirectory() as name:
        memory(arguments.model, Path(name), arguments.threads)
        throughput(encoder, Path(name), arguments.rounds)
        authors_way(encoder, Path(name), arguments.rounds)
    soak(arguments.model, arguments.threads)


if __name__ == "__main__":
    main()
