"""torchaudio as a witness: what it computes of the same signal beside the front end and resampler.

torchaudio is a CUDA build wherever it is installed from, and loads beside a CUDA build of torch
alone; nothing else depends on it.
"""

from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.audio import SAMPLE_RATE, Resampler
from models.nn.frontend import EPS, F_MAX, F_MIN, HOP_LENGTH, N_FFT, N_MELS, LogMel

EDGE = 0.02  # seconds at both ends, where filters of different lengths see different silence


class WitnessError(RuntimeError):
    """torchaudio cannot be used here."""


def torchaudio() -> ModuleType:
    """The package, if it can be loaded.

    Raises:
        WitnessError: it is not installed, or was built for another torch.
    """
    try:
        import torchaudio
        import torchaudio.functional
        import torchaudio.transforms
    except ImportError:
        missing = "torchaudio is not installed: pip install 'viola-audio[torchaudio]'"
        raise WitnessError(f"{missing}, beside a CUDA build of torch") from None
    except (OSError, RuntimeError) as error:
        raise WitnessError(
            f"torchaudio does not load beside torch {torch.__version__}: it needs a CUDA build of "
            f"torch ({str(error).splitlines()[0]})"
        ) from error
    package: ModuleType = torchaudio
    return package


def log_mel_difference(device: torch.device) -> float:
    """The largest difference of our log-mels and torchaudio's, of tones, in log units."""
    package = torchaudio()
    theirs = package.transforms.MelSpectrogram(
        SAMPLE_RATE,
        N_FFT,
        hop_length=HOP_LENGTH,
        f_min=F_MIN,
        f_max=F_MAX,
        n_mels=N_MELS,
        norm="slaney",
        mel_scale="slaney",
    ).to(device)
    waveform = _signals(SAMPLE_RATE).to(device)
    ours = LogMel().to(device)(waveform)
    return float((ours - torch.log(theirs(waveform) + EPS)).abs().max())


def resample_difference(device: torch.device, rate: int = 44_100) -> float:
    """The largest difference of soxr's samples at 16 kHz and torchaudio's, on the device."""
    package = torchaudio()
    signals = _signals(rate, highest=6000.0)
    theirs = package.functional.resample(
        signals.to(device), rate, SAMPLE_RATE, lowpass_filter_width=64, rolloff=0.96
    ).cpu()
    ours = np.stack([_by_soxr(signal, rate) for signal in signals.numpy()])
    edge = round(EDGE * SAMPLE_RATE)
    n = min(ours.shape[1], theirs.shape[1]) - edge
    return float(np.abs(ours[:, edge:n] - theirs.numpy()[:, edge:n]).max())


def _by_soxr(signal: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    resampler = Resampler(rate)
    return np.concatenate([resampler.add(signal), resampler.rest()])


def _signals(rate: int, highest: float = 7000.0) -> Tensor:
    """Two seconds of forty tones at a rate, from 80 to `highest` Hz: (3, S)."""
    time = torch.arange(2 * rate, dtype=torch.float64) / rate
    generator = torch.Generator().manual_seed(0)
    tones = torch.linspace(80.0, highest, 40, dtype=torch.float64)
    phases = 6.28 * torch.rand(3, 40, 1, generator=generator, dtype=torch.float64)
    waves = torch.sin(2 * torch.pi * tones[:, None] * time + phases)  # (3, 40, S)
    levels = torch.rand(3, 40, 1, generator=generator, dtype=torch.float64)
    return (0.02 * (levels * waves).sum(1)).float()
