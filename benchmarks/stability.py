"""How far a vector over HTTP moves with what should not change it, and with what changes little.

    python benchmarks/stability.py

Every clip of samples/ as 16-bit WAV at 16 kHz against the same sound beside others, after a
restart, in other formats, at other sample rates, shifted. One table, in Markdown.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray
from serve import SAMPLES, viola

from models.audio import SAMPLE_RATE

Signal = NDArray[np.float32]
N_NEIGHBOURS = 24
MP3_LEVELS = (0.0, 0.3, 0.6, 0.85)  # of libsndfile's scale; the bit rates are measured
OPUS_LEVELS = (0.0, 0.4, 0.8, 0.95)
RATES = (8_000, 11_025, 22_050, 44_100, 48_000, 96_000)
SHIFT_S = 1.2
EXCERPT_S = 5.0


def file(samples: Signal, rate: int, kind: str, subtype: str, level: float | None = None) -> bytes:
    out = io.BytesIO()
    how = {} if level is None else {"compression_level": level}
    with sf.SoundFile(out, "w", rate, 1, subtype, format=kind, **how) as target:
        for first in range(0, len(samples), 4_000):
            target.write(samples[first : first + 4_000])
    return out.getvalue()


def vector(client: httpx.Client, data: bytes) -> Signal:
    answer = client.post("/v1/audio/embeddings?output=application/x-npy", content=data)
    answer.raise_for_status()
    found: Signal = np.load(io.BytesIO(answer.content))
    return found.reshape(-1)


def among_others(client: httpx.Client, data: list[bytes]) -> list[Signal]:
    """The vectors of all, several of each in the same moment and in the same batches."""
    many = data * (N_NEIGHBOURS // len(data))
    with ThreadPoolExecutor(len(many)) as pool:
        vectors = list(pool.map(lambda one: vector(client, one), many))
    return [  # of each clip the one that is furthest from the first
        max(vectors[n :: len(data)], key=lambda v: float(np.abs(v - vectors[n]).max()))
        for n in range(len(data))
    ]


def compressed(
    sounds: list[Signal], name: str, kind: str, subtype: str, levels: tuple[float, ...]
) -> Iterator[tuple[str, list[bytes]]]:
    seconds = sum(map(len, sounds)) / SAMPLE_RATE
    for level in levels:
        files = [file(sound, SAMPLE_RATE, kind, subtype, level) for sound in sounds]
        yield f"{name}, {sum(map(len, files)) * 8 / seconds / 1000:.0f} kbit/s", files


def row(name: str, found: list[Signal], expected: list[Signal]) -> None:
    pairs = list(zip(found, expected, strict=True))
    delta = max(float(np.abs(a - b).max()) for a, b in pairs)
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs]
    print(f"| {name} | {delta:.1e} | {min(cosines):.5f} | {np.mean(cosines):.5f} |", flush=True)


def main() -> None:
    paths = sorted(SAMPLES.glob("*.opus"))
    natives = [sf.read(path, dtype="float32", always_2d=True) for path in paths]
    originals = [(samples.mean(1), rate) for samples, rate in natives]
    sounds = [soxr.resample(samples, rate, SAMPLE_RATE) for samples, rate in originals]
    wavs = [file(sound, SAMPLE_RATE, "WAV", "PCM_16") for sound in sounds]
    print("| against 16-bit WAV at 16 kHz | max abs delta | least cosine | mean cosine |")
    print("|---|---|---|---|")
    with viola() as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        expected = [vector(client, wav) for wav in wavs]
        row("again", [vector(client, wav) for wav in wavs], expected)
        row(f"{N_NEIGHBOURS} at once", among_others(client, wavs), expected)
    with viola() as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        row("after a restart", [vector(client, wav) for wav in wavs], expected)
        flac = [file(sound, SAMPLE_RATE, "FLAC", "PCM_16") for sound in sounds]
        row("FLAC", [vector(client, one) for one in flac], expected)
        floats = [file(sound, SAMPLE_RATE, "WAV", "FLOAT") for sound in sounds]
        row("float WAV", [vector(client, one) for one in floats], expected)
        lossy = [
            *compressed(sounds, "MP3", "MP3", "MPEG_LAYER_III", MP3_LEVELS),
            *compressed(sounds, "Opus", "OGG", "OPUS", OPUS_LEVELS),
        ]
        for name, files in lossy:
            row(name, [vector(client, one) for one in files], expected)
        for rate in RATES:
            resampled = [soxr.resample(samples, native, rate) for samples, native in originals]
            files = [file(samples, rate, "WAV", "FLOAT") for samples in resampled]
            row(f"WAV at {rate / 1000:g} kHz", [vector(client, one) for one in files], expected)
        shifts = [excerpts(sound) for sound in sounds]
        vectors = [[vector(client, one) for one in files] for files in shifts]
        for place, sign in ((0, "-"), (2, "+")):
            name = f"{EXCERPT_S:g} s, {sign}{SHIFT_S} s"
            row(name, [three[place] for three in vectors], [three[1] for three in vectors])
    scale = max(float(np.abs(one).max()) for one in expected)
    print(f"\n{len(paths)} clips; the largest value of a vector is {scale:.2f}")


def excerpts(sound: Signal) -> list[bytes]:
    """Three of one length, each later than the one before; a short clip is repeated for it."""
    step, length = round(SHIFT_S * SAMPLE_RATE), round(EXCERPT_S * SAMPLE_RATE)
    whole = np.resize(sound, max(len(sound), length + 2 * step))
    cuts = [whole[first : first + length] for first in (0, step, 2 * step)]
    return [file(cut, SAMPLE_RATE, "WAV", "PCM_16") for cut in cuts]


if __name__ == "__main__":
    main()
