"""Disturbances of a recording after which a listener still hears the same sound.

Another bandwidth, a codec, noise, another level, the colour of a microphone, a cut: they should
hardly change a vector. Each function takes samples (S,) at 16 kHz in [-1, 1] and a random
generator, and gives samples of the same kind.
"""

import io
from collections.abc import Callable

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from models.audio import SAMPLE_RATE

Floats = NDArray[np.float32]
Disturbance = Callable[[Floats, np.random.Generator], Floats]

LEAST_SAMPLES = 4000  # a quarter of a second: of less, codecs make nothing but their own silence
RATES_HZ = (5_000, 14_000)  # a telephone's and less, to nearly all of ours
CODECS = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"))
COMPRESSION = (0.2, 1.0)  # of a codec, 1 being the strongest
SNR_DB = (20, 50)
GAIN_DB = (-15, 9)  # what goes beyond full scale is clipped
TILT_DB, RIPPLE_DB, RIPPLES = 6, 4, (0.5, 2.0)  # of a microphone's response, over our band
CUT = 0.2  # of the length, at either end


def bandwidth(samples: Floats, rng: np.random.Generator) -> Floats:
    """Through a lower sampling rate: all above half of it is gone."""
    low, high = np.log(RATES_HZ)
    rate = round(np.exp(rng.uniform(low, high)))
    narrow = soxr.resample(samples, SAMPLE_RATE, rate)
    return _as_long(soxr.resample(narrow, rate, SAMPLE_RATE), len(samples))


def codec(samples: Floats, rng: np.random.Generator) -> Floats:
    """Through MP3, Vorbis or Opus."""
    container, subtype = CODECS[rng.integers(len(CODECS))]
    file = io.BytesIO()
    sf.write(
        file,
        samples,
        SAMPLE_RATE,
        format=container,
        subtype=subtype,
        compression_level=rng.uniform(*COMPRESSION),
    )
    file.seek(0)
    return _as_long(sf.read(file, dtype="float32")[0], len(samples))


def noise(samples: Floats, rng: np.random.Generator) -> Floats:
    """With white noise."""
    level = np.sqrt(np.square(samples).mean()) * 10 ** (-rng.uniform(*SNR_DB) / 20)
    made: Floats = samples + (level * rng.standard_normal(len(samples))).astype(np.float32)
    return made


def gain(samples: Floats, rng: np.random.Generator) -> Floats:
    """Louder or softer."""
    made: Floats = np.clip(samples * np.float32(10 ** (rng.uniform(*GAIN_DB) / 20)), -1, 1)
    return made


def colour(samples: Floats, rng: np.random.Generator) -> Floats:
    """Through a microphone whose response is tilted and wavy."""
    spectrum = np.fft.rfft(samples)
    place = np.linspace(0, 1, len(spectrum))
    tilt = rng.uniform(-TILT_DB, TILT_DB) * (place - 0.5)
    ripple = rng.uniform(-RIPPLE_DB, RIPPLE_DB) * np.cos(2 * np.pi * rng.uniform(*RIPPLES) * place)
    return np.fft.irfft(spectrum * 10 ** ((tilt + ripple) / 20), len(samples)).astype(np.float32)


def cut(samples: Floats, rng: np.random.Generator) -> Floats:
    """Shorter, at both ends."""
    begin, end = (rng.uniform(0, CUT, 2) * len(samples)).astype(int)
    return samples[begin : len(samples) - end]


DISTURBANCES: dict[str, Disturbance] = {
    made.__name__: made for made in (bandwidth, codec, noise, gain, colour, cut)
}


def _as_long(samples: Floats, n_samples: int) -> Floats:
    """The same sound in `n_samples` samples: cut off, or with silence behind it."""
    return np.pad(samples, (0, max(0, n_samples - len(samples))))[:n_samples]
