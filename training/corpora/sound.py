"""What is sound, told by the first bytes of a file, in a form that `viola prepare` reads."""

import io
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from models import audio
from models.limits import AudioError, Limits

MIN_DURATION_S = 0.1
SILENT_BELOW = 1e-3  # of full scale, -60 dB: a file without a louder sample is silent
_RATES = (Limits().min_sample_rate, Limits().max_sample_rate)


class NoSoundError(ValueError):
    """A file that looks like sound and cannot be used; the message says why."""


class Sound(NamedTuple):
    """A file of sound.

    Attributes:
        data: its bytes, in a format that `models.audio` reads.
        suffix: of that format, such as ".ogg".
        duration_s: seconds.
    """

    data: bytes
    suffix: str
    duration_s: float


def suffix_of(head: bytes) -> str | None:
    """The usual suffix of the format that these first 12 bytes belong to; None: no sound.

    MP3 without a tag has no mark that other data could not have by chance: it counts as sound where
    four zero or set bits more agree (`_is_mp3`).
    """
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return ".wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return ".aiff"
    marks = {b"OggS": ".ogg", b"fLaC": ".flac", b"ID3": ".mp3", b".snd": ".au"}
    marks |= {b"Creative Voi": ".voc", b"wvpk": ".wv", b"caff": ".caf", b"riff\x2e\x91": ".w64"}
    for mark, suffix in marks.items():
        if head.startswith(mark):
            return suffix
    if head[4:11] == b"ftypM4A":
        return ".m4a"
    return ".mp3" if _is_mp3(head) else None


def read(data: bytes) -> Sound:
    """Check and measure a file of sound; what `models.audio` does not read becomes FLAC.

    Raises:
        NoSoundError: it cannot be decoded, or it is too short or silent.
    """
    suffix = suffix_of(data[:12])
    if suffix is None:
        raise NoSoundError("not a format of sound that is known")
    try:
        duration_s, peak = _measure(data)
    except AudioError as error:
        if error.reason not in ("unsupported", "unreadable"):
            raise NoSoundError(f"{error.reason}: {error}") from error
        data, suffix = _as_flac(data), ".flac"
        duration_s, peak = _measure(data)
    if duration_s < MIN_DURATION_S:
        raise NoSoundError(f"{duration_s:.3f} s long; expected {MIN_DURATION_S:g} s or more")
    if peak < SILENT_BELOW:
        raise NoSoundError(f"silent: no sample above {SILENT_BELOW:g} of full scale")
    return Sound(data, suffix, duration_s)


def _measure(data: bytes) -> tuple[float, float]:
    """Seconds, and the highest peak of the blocks up to the first that is not silent."""
    duration_s = audio.read_header(data).duration_s
    n_samples, peak = 0, 0.0
    for block in audio.stream(data, warn=lambda sentence: None):  # told by `viola prepare`
        n_samples += len(block)
        peak = max(peak, float(np.abs(block).max()))
        if duration_s is not None and peak >= SILENT_BELOW:
            break  # the rest is decoded by `viola prepare`, which lists what is broken
    return (n_samples / audio.SAMPLE_RATE if duration_s is None else duration_s), peak


def _as_flac(data: bytes) -> bytes:
    """Decode by libsndfile (VOC, compressed WAV) or FFmpeg, and encode without loss."""
    try:
        samples, rate = sf.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except sf.LibsndfileError as error:
        samples, rate = _by_ffmpeg(data, error.error_string)
    if not len(samples) or not _RATES[0] <= rate <= _RATES[1]:
        raise NoSoundError(f"{len(samples)} samples at {rate} Hz")
    file = io.BytesIO()
    sf.write(file, samples[:, :8], rate, "PCM_24", format="FLAC")
    return file.getvalue()


def _by_ffmpeg(data: bytes, otherwise: str) -> tuple[NDArray[np.float32], int]:
    """Samples and rate of what PyAV reads (WavPack, Vorbis in WAV), where it is installed."""
    if find_spec("av") is None:
        raise NoSoundError(f"no decoder for it ({otherwise}); pip install 'viola-audio[media]'")
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono")
            frames = [*container.decode(audio=0), None]
            mono = [one for frame in frames for one in resampler.resample(frame)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise NoSoundError(f"no decoder for it: {otherwise}") from error
    if not mono:
        raise NoSoundError("no samples in it")
    return np.concatenate([one.to_ndarray().reshape(-1, 1) for one in mono]), mono[0].sample_rate


def _is_mp3(head: bytes) -> bool:
    """A frame's header of MPEG 1 or 2, layer III, with a bit rate and a sample rate that exist."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xF6 != 0xF2:
        return False
    return head[2] >> 4 not in (0, 15) and (head[2] >> 2) & 3 != 3
