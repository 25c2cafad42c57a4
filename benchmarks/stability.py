"""How little a vector depends on what it should not: neighbours, restarts, formats, rates, shifts.

    python benchmarks/stability.py [FILE ...]

Every vector comes over HTTP from a service in a process of its own, on the samples if no files are
named. Clips that are coded or resampled here are compared with 16 kHz, 16-bit WAV of the same
samples.
"""

import argparse
import base64
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import httpx
import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray
from processes import SAMPLES, viola

from models import audio
from models.audio import SAMPLE_RATE

SHIFT_S = 1.2
LEAST_S = 1.0  # of sound that both sides of a shift share
RATES = (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000)
LEVELS = (0.0, 0.5, 0.9)  # of compression, as soundfile counts it
NEIGHBOURS = 15

Floats = NDArray[np.float32]
Coder = Callable[[Floats], bytes]


@dataclass(frozen=True)
class Service:
    """A service that runs."""

    port: int

    def embed(self, files: Sequence[bytes]) -> list[Floats]:
        """The vectors of files, each a request of its own, all at the same time."""
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120) as client,
            ThreadPoolExecutor(len(files)) as threads,
        ):
            return list(threads.map(lambda data: _embed(client, data), files))

    def alone(self, files: Sequence[bytes]) -> list[Floats]:
        """The same, one after the other."""
        return [self.embed([data])[0] for data in files]


def _embed(client: httpx.Client, data: bytes) -> Floats:
    answer = client.post("/v1/audio/embeddings?output=base64", content=data)
    answer.raise_for_status()
    return np.frombuffer(base64.b64decode(answer.json()["data"][0]["embedding"]), "<f4")


def coded(
    samples: Floats,
    kind: str = "WAV",
    subtype: str = "PCM_16",
    rate: int = SAMPLE_RATE,
    level: float | None = None,
) -> bytes:
    """Samples at 16 kHz as a file, brought to another rate first if one is named."""
    out = io.BytesIO()
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, SAMPLE_RATE, rate)
    # Rounded here: libsndfile scales floats by other factors for other formats
    pcm = np.round(samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    sf.write(out, pcm, rate, subtype, format=kind, compression_level=level)
    return out.getvalue()


def row(what: str, found: Sequence[Floats], expected: Sequence[Floats]) -> None:
    """One line of the table: the clip that differs most."""
    pairs = list(zip(found, expected, strict=True))
    cosines = [
        float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) for one, other in pairs
    ]
    delta = max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)
    n_equal = sum(np.array_equal(one, other) for one, other in pairs)
    shown = f"{n_equal} of {len(pairs)}"
    print(
        f"| {what} | {shown} | {delta:.1e} | {min(cosines):.6f} | {np.mean(cosines):.6f} |",
        flush=True,
    )


def codings() -> Iterator[tuple[str, Coder]]:
    """Names and makers of files that hold the same sound, more or less."""
    yield "FLAC, the same PCM", lambda samples: coded(samples, "FLAC")
    yield "WAV of 24 bits", lambda samples: coded(samples, "WAV", "PCM_24")
    for kind, subtype, name in (
        ("MP3", "MPEG_LAYER_III", "MP3"),
        ("OGG", "OPUS", "Opus"),
        ("OGG", "VORBIS", "Vorbis"),
    ):
        for level in LEVELS:
            yield name, lambda samples, k=kind, s=subtype, q=level: coded(samples, k, s, level=q)
    for rate in RATES:
        yield f"{rate / 1000:g} kHz", lambda samples, r=rate: coded(samples, rate=r)


def main() -> None:
    """The whole table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="clips; else those of samples/")
    paths = parser.parse_args().files or sorted(SAMPLES.glob("*.opus"))
    clips = [audio.decode(path) for path in paths]
    plain = [coded(clip) for clip in clips]
    print(f"{len(clips)} clips\n")
    print("| | equal to the bit | largest difference, of the peak | least cosine | mean cosine |")
    print("|---|---|---|---|---|")
    with viola() as (port, _):
        service = Service(port)
        expected = service.alone(plain)
        row("the same request again", service.alone(plain), expected)
        beside = [service.embed([data, *(plain * NEIGHBOURS)[:NEIGHBOURS]])[0] for data in plain]
        row(f"beside {NEIGHBOURS} other requests", beside, expected)
    with viola(threads=1, inferences=1) as (port, _):
        row("after a restart, on one thread", Service(port).alone(plain), expected)
    with viola() as (port, _):
        service = Service(port)
        row("after a restart", service.alone(plain), expected)
        for name, code in codings():
            files = [code(clip) for clip in clips]
            seconds = sum(map(len, clips)) / SAMPLE_RATE
            kbits = 8e-3 * sum(map(len, files)) / seconds
            row(f"{name}, {kbits:.0f} kbit/s", service.alone(files), expected)
        shift = round(SHIFT_S * SAMPLE_RATE)
        long = [clip for clip in clips if len(clip) > shift + LEAST_S * SAMPLE_RATE]
        early = service.alone([coded(clip[:-shift]) for clip in long])
        late = service.alone([coded(clip[shift:]) for clip in long])
        row(f"{SHIFT_S:g} s later in the recording, as long", late, early)
        pairs = list(combinations(expected, 2))
        row("for comparison: two different clips", *zip(*pairs, strict=True))


if __name__ == "__main__":
    main()
