"""What a vector keeps of pitch, loudness, tempo, voice and room: regression on generated sounds.

    python benchmarks/keeps.py [MODEL.onnx ...] [--clips 600] [--seeds 5] [--plot FILE.png]

Each quantity is drawn at random and everything else about the sound as well, so that it can only be
told from what the vector keeps of it. Ridge regression, its penalty chosen by cross-validation on
the training half, predicts the quantity of the other half; R2, the mean over splits, is 1 where it
is kept whole and 0 where the mean would have told as much. Beside each encoder: the same network
with random weights, and log-mel statistics.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.signal import fftconvolve
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from training.evaluation.embeddings import Subject, subjects

RATE, SECONDS = 16_000, 3.0
N_SAMPLES = int(RATE * SECONDS)
Floats = NDArray[np.float32]
Rng = np.random.Generator
console = Console(stderr=True)


def harmonics(rng: Rng, pitch: float, n_samples: int, slope: float | None = None) -> Floats:
    """A tone with a spectrum that falls by a random power, and random phases."""
    times = np.arange(n_samples) / RATE
    numbers = np.arange(1, int(7_000 / pitch) + 1)
    levels = numbers ** -(rng.uniform(0.5, 2.5) if slope is None else slope)
    levels *= rng.uniform(0.2, 1.0, len(numbers))
    phases = rng.uniform(0, 2 * np.pi, len(numbers))
    parts = np.sin(2 * np.pi * pitch * numbers[:, None] * times + phases[:, None])
    return normalised((levels[:, None] * parts).sum(0))


def normalised(sound: NDArray[np.floating], level: float = 0.1) -> Floats:
    """The sound at this root mean square."""
    return (sound * level / (np.sqrt(np.mean(sound**2)) + 1e-9)).astype(np.float32)


def coloured_noise(rng: Rng, n_samples: int) -> Floats:
    """Noise whose power falls by a random power of the frequency."""
    spectrum = np.fft.rfft(rng.normal(size=n_samples))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.uniform(0, 1)
    return normalised(np.fft.irfft(spectrum, n_samples))


def any_sound(rng: Rng, n_samples: int = N_SAMPLES) -> Floats:
    """A tone or noise, swelling at random."""
    pitch = np.exp(rng.uniform(np.log(80), np.log(1_000)))
    is_tone = rng.random() < 0.5
    sound = harmonics(rng, pitch, n_samples) if is_tone else coloured_noise(rng, n_samples)
    swell = np.interp(np.linspace(0, 7, n_samples), np.arange(8), rng.uniform(0.3, 1, 8))
    return normalised(sound * swell)


def of_pitch(rng: Rng) -> tuple[Floats, float]:
    """A tone of 80 to 1,000 Hz at any level; log2 of its frequency."""
    pitch = np.exp(rng.uniform(np.log(80), np.log(1_000)))
    return harmonics(rng, pitch, N_SAMPLES) * 10 ** rng.uniform(-1, 0.3), np.log2(pitch)


def of_loudness(rng: Rng) -> tuple[Floats, float]:
    """Any sound, -40 to 0 dB; the decibels."""
    decibels = rng.uniform(-40, 0)
    return any_sound(rng) * 10 ** (decibels / 20), decibels


def of_tempo(rng: Rng) -> tuple[Floats, float]:
    """Beats of one sound, 60 to 200 a minute, over noise; log2 of the tempo."""
    tempo = np.exp(rng.uniform(np.log(60), np.log(200)))
    n_beat = int(RATE * rng.uniform(0.03, 0.15))
    beat = any_sound(rng, n_beat) * np.exp(-np.linspace(0, rng.uniform(3, 8), n_beat))
    mixed = coloured_noise(rng, N_SAMPLES) * rng.uniform(0.01, 0.2)
    for start in np.arange(rng.uniform(0, 60 / tempo), SECONDS, 60 / tempo):
        first = int(start * RATE)
        part = mixed[first : first + n_beat]
        part += beat[: len(part)]
    return normalised(mixed), np.log2(tempo)


def of_voice(rng: Rng) -> tuple[Floats, float]:
    """Vowels at random through a vocal tract of 13 to 19 cm; its length in cm."""
    length = rng.uniform(13, 19)
    vowels = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
    n_vowel = N_SAMPLES // 6
    frequencies = np.fft.rfftfreq(n_vowel, 1 / RATE)
    sounds = []
    for formants in rng.permutation(np.tile(np.array(vowels), (2, 1)))[:6]:
        source = harmonics(rng, rng.uniform(90, 250), n_vowel, slope=1.0)
        gain = sum(
            1 / (1 + ((frequencies - formant * 17 / length) / 80) ** 2) for formant in formants
        )
        sounds.append(normalised(np.fft.irfft(np.fft.rfft(source) * (gain + 0.01), n_vowel)))
    return np.concatenate(sounds) * 10 ** rng.uniform(-1, 0.3), length


def of_room(rng: Rng) -> tuple[Floats, float]:
    """Bursts of any sound in a room that fades by 60 dB in 0.1 to 1.5 s; log2 of the seconds."""
    fading = np.exp(rng.uniform(np.log(0.1), np.log(1.5)))
    dry = np.zeros(N_SAMPLES, np.float32)
    for start in np.sort(rng.uniform(0, SECONDS - 0.5, rng.integers(3, 8))):
        n_burst = int(RATE * rng.uniform(0.05, 0.3))
        dry[int(start * RATE) :][:n_burst] += any_sound(rng, n_burst)
    times = np.arange(int(RATE * fading)) / RATE
    response = rng.normal(size=len(times)) * np.exp(-np.log(1_000) * times / fading)
    response[0] = np.sqrt(np.sum(response**2)) * rng.uniform(0.5, 2)
    return normalised(fftconvolve(dry, response)[:N_SAMPLES]), np.log2(fading)


QUANTITIES: dict[str, Callable[[Rng], tuple[Floats, float]]] = {
    "pitch": of_pitch,
    "loudness": of_loudness,
    "tempo": of_tempo,
    "voice": of_voice,
    "room": of_room,
}


def score(vectors: Floats, values: Sequence[float], seed: int) -> float:
    """R2 on the half that was held out."""
    split = train_test_split(vectors, np.array(values), test_size=0.5, random_state=seed)
    known, asked, told, truth = split
    # Values that hardly vary among the known ones would be scaled up without bound
    model = make_pipeline(
        StandardScaler(),
        FunctionTransformer(np.clip, kw_args={"a_min": -8, "a_max": 8}),
        RidgeCV(np.logspace(-1, 6, 15)),
    )
    return float(model.fit(known, told).score(asked, truth))


def embedded(subject: Subject, sounds: Floats) -> Floats:
    """Vectors of all sounds, some at a time."""
    return np.concatenate([subject.embed(sounds[i : i + 50]) for i in range(0, len(sounds), 50)])


def plot(path: Path, rows: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Bars of each subject, quantity by quantity."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    width = 0.8 / len(rows)
    for i, (name, row) in enumerate(rows.items()):
        places = np.arange(len(row)) + i * width
        heights = [max(0.0, mean) for mean, _ in row.values()]
        axes.bar(places, heights, width, yerr=[d for _, d in row.values()], label=name)
    axes.set_xticks(np.arange(len(QUANTITIES)) + 0.4 - width / 2, list(QUANTITIES))
    axes.set_ylabel("R2 of ridge regression")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower left", fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="*", help="the default encoder if none")
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    compared = subjects(arguments.models, untrained=True, log_mel=True)
    rows: dict[str, dict[str, tuple[float, float]]] = {subject.name: {} for subject in compared}
    for number, (name, draw) in enumerate(QUANTITIES.items()):
        rng = np.random.default_rng(number)
        drawn = [draw(rng) for _ in track(range(arguments.clips), name, console=console)]
        sounds, values = np.stack([sound for sound, _ in drawn]), [value for _, value in drawn]
        for subject in compared:
            vectors = embedded(subject, sounds)
            scores = [score(vectors, values, seed) for seed in range(arguments.seeds)]
            rows[subject.name][name] = float(np.mean(scores)), float(np.std(scores))
            console.print(f"{subject.name}: {name} {np.mean(scores):.3f}", highlight=False)
    print("| vector | " + " | ".join(QUANTITIES) + " |")
    print("|---|" + "---:|" * len(QUANTITIES))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{m:.2f} ± {d:.2f}" for m, d in row.values()) + " |")
    if arguments.plot:
        plot(arguments.plot, rows)


if __name__ == "__main__":
    main()
