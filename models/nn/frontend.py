"""Log-mel spectrogram and its normalisation, as layers that travel inside the model file.

The front end of BYOL-A (arXiv 2103.06695, sec. IV): 64 ms Hann windows every 10 ms, 64 Slaney mel
bands from 60 to 7800 Hz, natural logarithm. Letters: `B` batch, `S` samples, `F` mel bands, `T`
time frames.
"""

import numpy as np
import torch
import torch.nn.functional as F
from librosa.filters import mel
from numpy.typing import NDArray
from torch import Tensor, nn

from models.audio import SAMPLE_RATE

N_FFT = 1024
HOP_LENGTH = 160
N_MELS = 64
F_MIN = 60.0
F_MAX = 7800.0
EPS = float(np.finfo(np.float32).eps)

# The DFT of N_FFT points is factored as RADIX_1 * RADIX_2. RADIX_2 divides HOP_LENGTH, so that
# frames start on whole rows of RADIX_2 samples and a strided convolution does framing, window and
# first factor in one go.
RADIX_1 = 64
RADIX_2 = 16


class LogMel(nn.Module):
    """Log-mel spectrogram of a batch of waveforms: (B, S) -> (B, F, T), T = 1 + S // HOP_LENGTH.

    `log(mel + eps)` of the power spectrum, centred frames, reflection at both ends of the valid
    samples. The DFT is the Cooley-Tukey factorisation of 1024 = 64 * 16 written as two batched
    matrix products with window and twiddle factors folded in: a tenth of the arithmetic of a
    convolution with the DFT basis, and nothing but operators that every ONNX runtime does well.
    For n = 16 n1 + n2 and k = k1 + 64 k2:

        Y[k1, n2] = sum_n1 window[n] x[n] exp(-2 pi i n1 k1 / 64)
        X[k]      = sum_n2 Y[k1, n2] exp(-2 pi i n2 k / 1024)

    The signal is real, so that k1 = 0..32 reaches every bin or its mirror image.

    Batches without padding, as in training, take torch's FFT instead: on a CPU in a third of the
    time.
    """

    first: Tensor
    second: Tensor
    mel: Tensor
    window: Tensor
    mel_by_bin: Tensor

    def __init__(self) -> None:
        super().__init__()
        first, second, mel_weights = _factored_dft()
        self.register_buffer("first", first, persistent=False)  # (RADIX_2 * 2 * K1, 1, RADIX_1)
        self.register_buffer("second", second, persistent=False)  # (K1, 2 * RADIX_2, 2 * RADIX_2)
        self.register_buffer("mel", mel_weights, persistent=False)  # (F, K1 * 2 * RADIX_2)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("mel_by_bin", torch.from_numpy(mel_filters()), persistent=False)

    def forward(self, waveform: Tensor, length: Tensor | None = None) -> Tensor:
        """(B, S) and the valid samples of each row (B,), all of them if None -> (B, F, T).

        Frames from `1 + length // HOP_LENGTH` on hold no meaning; the caller masks them.
        """
        if length is None:
            return self._by_fft(waveform)
        n_padded = waveform.shape[1] // HOP_LENGTH * HOP_LENGTH + N_FFT
        padded = _reflect_at_length(waveform, length, n_padded)
        rows = padded.reshape(padded.shape[0], -1, RADIX_2).transpose(1, 2)  # (B, RADIX_2, n_rows)
        y = F.conv1d(rows, self.first, stride=HOP_LENGTH // RADIX_2, groups=RADIX_2)
        y = y.reshape(y.shape[0], RADIX_2, RADIX_1 // 2 + 1, 2, y.shape[2])  # (B, n2, k1, re|im, T)
        y = y.transpose(1, 2).flatten(2, 3)  # (B, K1, 2 * RADIX_2, T)
        spectrum = torch.matmul(self.second, y)  # real and imaginary parts, (B, K1, 2 * RADIX_2, T)
        power = spectrum.square().flatten(1, 2)
        return torch.log(torch.matmul(self.mel, power) + EPS)

    def _by_fft(self, waveform: Tensor) -> Tensor:
        """The same of clips that have no padding: (B, S) -> (B, F, T)."""
        spectrum = torch.stft(
            waveform,
            N_FFT,
            HOP_LENGTH,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )  # (B, bins, T)
        power = torch.view_as_real(spectrum).square().sum(-1)
        return torch.log(torch.matmul(self.mel_by_bin, power) + EPS)


class Normalize(nn.Module):
    """Pre-normalisation with the training set's scalar statistics: (x - mean) / std, any shape."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        if not std > 0:
            raise ValueError(f"std is {std}; expected a number above 0")
        self.mean = mean
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """Shift and scale, shape kept."""
        return (x - self.mean) / self.std


def n_frames(length: Tensor) -> Tensor:
    """Log-mel frames of clips of `length` samples, same shape."""
    return 1 + length // HOP_LENGTH


def mel_filters() -> NDArray[np.float32]:
    """Slaney mel filters with Slaney area normalisation, (F, N_FFT // 2 + 1)."""
    filters: NDArray[np.float32] = mel(
        sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=F_MIN, fmax=F_MAX, htk=False, norm="slaney"
    )
    return filters


def _reflect_at_length(waveform: Tensor, length: Tensor, n_padded: int) -> Tensor:
    """Reflect each row at 0 and at its own `length`, zeros where a clip is shorter than (B, S).

    A gather: the mirror image of position p beyond the last valid sample is 2 (length - 1) - p.
    """
    position = (torch.arange(n_padded, device=waveform.device) - N_FFT // 2).abs()  # (n_padded,)
    last = length[:, None] - 1
    source = torch.where(position > last, 2 * last - position, position)  # (B, n_padded)
    source = source.clamp(min=0)
    return waveform.gather(1, source)


def _factored_dft() -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the DFT stages, and the mel filters in the order of the second one's output."""
    n1, n2 = np.arange(RADIX_1), np.arange(RADIX_2)
    k1, k2 = np.arange(RADIX_1 // 2 + 1), np.arange(RADIX_2)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).reshape(RADIX_1, RADIX_2)
    basis = np.exp(-2j * np.pi * np.outer(k1, n1) / RADIX_1)  # (K1, RADIX_1)
    first = window.T[:, None, :] * basis[None]  # (RADIX_2, K1, RADIX_1)
    first = np.stack([first.real, first.imag], axis=2).reshape(-1, 1, RADIX_1)

    k = k1[:, None] + RADIX_1 * k2[None]  # (K1, RADIX_2)
    twiddle = np.exp(-2j * np.pi * k[:, :, None] * n2 / N_FFT)  # (K1, k2, n2)
    second = np.empty((len(k1), RADIX_2, 2, RADIX_2, 2))  # (K1, k2, re|im out, n2, re|im in)
    second[:, :, 0, :, 0] = second[:, :, 1, :, 1] = twiddle.real
    second[:, :, 1, :, 0] = twiddle.imag
    second[:, :, 0, :, 1] = -twiddle.imag

    filters = mel_filters()
    mirrored = np.where(k > N_FFT // 2, N_FFT - k, k)
    weights = filters[:, mirrored]  # (F, K1, RADIX_2)
    twice = (k > N_FFT // 2) & np.isin(k1, (0, RADIX_1 // 2))[
        :, None
    ]  # their mirror images are here as well
    weights[:, twice] = 0
    weights = np.repeat(weights.reshape(N_MELS, -1), 2, axis=1)  # a bin's power is re^2 + im^2
    return tuple(
        torch.from_numpy(np.ascontiguousarray(w, dtype=np.float32))
        for w in (first, second.reshape(len(k1), 2 * RADIX_2, 2 * RADIX_2), weights)
    )  # type: ignore[return-value]
