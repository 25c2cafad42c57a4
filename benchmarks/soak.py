"""Whether memory grows: 100,000 requests of every kind, the RSS after each thousand, its slope.

    python benchmarks/soak.py [--requests 100000] [--plot benchmarks/results/soak.png]

Clips of several formats, rates and lengths, some of them broken, go to every route that takes
audio; a thousand at a time, eight at once, by `load.py`. The RSS is read when all are answered.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf
from processes import FORMATS, SAMPLES, children_mb, decoders, load, resident_mb, viola
from scipy.stats import t as student

from models import audio
from models.audio import SAMPLE_RATE

EMBED = "/v1/audio/embeddings?output=base64"
LENGTHS = {0.3: 6, 1.0: 8, 2.5: 4, 8.0: 1}  # seconds of audio, and how often
ROUTES = {
    EMBED: 12,
    "/v1/audio/embeddings": 2,
    "/v1/audio/classifications": 4,
    "/v1/audio/analyze?output=base64": 2,
    "/v1/audio/inspect?decode=true": 2,
    f"{EMBED}&window_s=0.2": 2,
    f"{EMBED}&stream=true&window_s=0.2": 1,  # each starts a process
}
BROKEN_SHARE = 0.1
EACH = 1_000


@dataclass
class Trend:
    """RSS in MB after each thousand requests."""

    service: list[float] = field(default_factory=list)
    decoders: list[float] = field(default_factory=list)

    def add(self, pid: int) -> None:
        self.service.append(resident_mb(pid))
        self.decoders.append(children_mb(pid))


def slope(values: list[float]) -> tuple[float, float]:
    """Least squares: the change from one value to the next, and half of its 95 % interval.

    Neighbours are alike, so that they count for less than as many independent values would:
    n (1 - r) / (1 + r), r the correlation of residuals that follow each other.
    """
    y, x = np.array(values), np.arange(len(values), dtype=float)
    x -= x.mean()
    gradient = float(x @ y / (x @ x))
    residuals = y - y.mean() - gradient * x
    power = residuals @ residuals
    r = float(residuals[1:] @ residuals[:-1] / power) if power else 0.0
    n = max(3.0, len(y) * (1 - max(r, 0.0)) / (1 + max(r, 0.0)))
    error = np.sqrt(power / (n - 2) / (x @ x))
    return gradient, float(student.ppf(0.975, n - 2) * error)


def clips(folder: Path) -> Iterator[tuple[Path, int]]:
    """Files of each format and length, at several rates, and how often each is sent."""
    rng = np.random.default_rng(0)
    speech = audio.decode(SAMPLES / "speech.opus")
    rates = {"WAV": 44_100, "FLAC": 16_000, "MP3": 22_050, "Opus": 48_000}
    for name, (kind, subtype) in FORMATS.items():
        for seconds, weight in LENGTHS.items():
            path = folder / f"{seconds:g}s.{name.lower()}"
            samples = np.resize(speech, round(seconds * SAMPLE_RATE))
            with sf.SoundFile(path, "w", rates[name], 2, subtype, format=kind) as out:
                for first in range(0, len(samples), 4_000):
                    out.write(np.repeat(samples[first : first + 4_000, None], 2, axis=1))
            yield path, weight
            broken = bytearray(path.read_bytes())
            for place in rng.integers(0, len(broken), 20):
                broken[place] ^= int(rng.integers(1, 256))
            path = path.with_suffix(".broken" + path.suffix)
            path.write_bytes(broken[: len(broken) * 3 // 4])
            yield path, 0


def mixture(folder: Path) -> list[tuple[str, str]]:
    """Pairs of a route and a file, as often as they are to be sent."""
    rng = random.Random(0)
    files = list(clips(folder))
    whole = [str(path) for path, weight in files for _ in range(weight)]
    broken = [str(path) for path, weight in files if not weight]
    routes = [route for route, weight in ROUTES.items() for _ in range(weight)]
    return [
        (rng.choice(routes), rng.choice(broken if rng.random() < BROKEN_SHARE else whole))
        for _ in range(EACH)
    ]


def soak(folder: Path, n_requests: int) -> tuple[Trend, Counter[int]]:
    trend, statuses = Trend(), Counter[int]()
    with viola() as (port, pid):
        made = mixture(folder)
        at_start = set(decoders(pid))
        for number in range(n_requests // EACH):
            found = load(port, EMBED, 120, mixture=made, requests=EACH, seed=number)
            statuses.update(status for status, _ in found["results"])
            time.sleep(0.2)
            trend.add(pid)
            if number % 10 == 9:
                took = f"{found['seconds']:.1f} s for the last thousand"
                print(f"  {(number + 1) * EACH}: {trend.service[-1]:.0f} MB, {took}", flush=True)
        replaced = len(set(decoders(pid)) - at_start)
    print(f"decoders that are not those of the start: {replaced}")
    return trend, statuses


def show(trend: Trend, statuses: Counter[int]) -> None:
    print("\n| status | requests |\n|---|---|")
    for status, count in sorted(statuses.items()):
        print(f"| {status or 'no answer'} | {count} |")
    print("\n| RSS, MB | after 1,000 | half-way | at the end | MB per 1,000 requests, 2nd half |")
    print("|---|---|---|---|---|")
    for name, values in (("service", trend.service), ("decoders", trend.decoders)):
        half = values[len(values) // 2 :]
        gradient, error = slope(half)
        print(
            f"| {name} | {values[0]:.1f} | {half[0]:.1f} | {values[-1]:.1f} | "
            f"{gradient:+.4f} ± {error:.4f} |"
        )


def plot(trend: Trend, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    thousands = np.arange(1, len(trend.service) + 1)
    axes.plot(thousands, trend.service, label="service")
    axes.plot(thousands, trend.decoders, label="decoders, together")
    axes.set(xlabel="thousands of requests", ylabel="RSS, MB", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    if asked.requests < 8 * EACH:
        parser.error(f"--requests {asked.requests} make no slope: at least {8 * EACH}")
    with tempfile.TemporaryDirectory() as folder:
        trend, statuses = soak(Path(folder), asked.requests)
    show(trend, statuses)
    if asked.plot:
        plot(trend, asked.plot)


if __name__ == "__main__":
    main()
