from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch

from models.nn.frontend import (
    EPS,
    F_MAX,
    F_MIN,
    HOP_LENGTH,
    N_FFT,
    N_MELS,
    LogMel,
    Normalize,
    mel_filters,
)
from tests.signals import noise, tone

SIGNALS = [noise(1.0), tone(440, 0.95), np.zeros(8000, np.float32)]


def by_definition(samples: np.ndarray) -> np.ndarray:
    """Short-time spectra (F, T), frame by frame."""
    padded = np.pad(samples.astype(np.float64), N_FFT // 2, mode="reflect")
    starts = range(0, len(samples) + 1, HOP_LENGTH)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    return np.stack([np.fft.rfft(hann * padded[at : at + N_FFT]) for at in starts], axis=1)


def by_librosa(samples: np.ndarray) -> np.ndarray:
    return librosa.stft(
        samples, n_fft=N_FFT, hop_length=HOP_LENGTH, window="hann", pad_mode="reflect"
    )


# librosa compiles itself where it was just installed, half a minute long
@pytest.mark.parametrize(
    "spectra", [by_definition, pytest.param(by_librosa, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("samples", SIGNALS)
def test_log_mel_is_that_of_the_definition_and_of_librosa(
    samples: np.ndarray, spectra: Callable[[np.ndarray], np.ndarray]
) -> None:
    log_mel = LogMel()(torch.from_numpy(samples[None]))[0].numpy()
    expected = np.log(mel_filters() @ np.abs(spectra(samples)) ** 2 + EPS)
    np.testing.assert_allclose(log_mel, expected, atol=1e-3)


def test_a_segment_of_095_seconds_has_96_frames() -> None:
    assert LogMel()(torch.zeros(2, 15_200)).shape == (2, N_MELS, 96)


@pytest.mark.parametrize("length", [513, 700, 9_999, 16_000])
def test_padding_does_not_change_the_valid_frames(length: int) -> None:
    samples = torch.from_numpy(noise(1.0))
    alone = LogMel()(samples[None, :length])
    padded = LogMel()(samples[None], torch.tensor([length]))
    torch.testing.assert_close(padded[..., : alone.shape[2]], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", SIGNALS)
def test_the_served_log_mel_equals_the_trained_one(samples: np.ndarray) -> None:
    waveform = torch.from_numpy(samples[None])
    by_products = LogMel()(waveform, torch.tensor([len(samples)]))
    torch.testing.assert_close(by_products, LogMel()(waveform), atol=1e-3, rtol=0)


@pytest.mark.parametrize("band", [5, 30, 60])
def test_a_tone_peaks_in_its_own_band(band: int) -> None:
    centre = librosa.mel_frequencies(N_MELS + 2, fmin=F_MIN, fmax=F_MAX)[band + 1]
    log_mel = LogMel()(torch.from_numpy(tone(centre, 1.0)[None]))[0]
    assert int(log_mel[:, 50].argmax()) == band


def test_silence_is_the_logarithm_of_eps() -> None:
    log_mel = LogMel()(torch.zeros(1, 4000))
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, float(np.log(EPS))))


def test_normalize_shifts_and_scales() -> None:
    assert Normalize(2.0, 4.0)(torch.tensor([6.0])).item() == 1.0


def test_normalize_refuses_a_deviation_of_zero() -> None:
    with pytest.raises(ValueError, match="std is 0"):
        Normalize(0.0, 0.0)


@pytest.mark.gpu
def test_on_a_gpu_both_ways_are_those_of_a_cpu() -> None:
    """The way of training, by cuFFT, and the exported one, by products of matrices."""
    waveform = 0.1 * torch.randn(4, 15_200, generator=torch.Generator().manual_seed(0))
    length = torch.full((4,), 15_200)
    expected, frontend = LogMel()(waveform), LogMel().cuda()
    trained = frontend(waveform.cuda()).cpu()
    served = frontend(waveform.cuda(), length.cuda()).cpu()
    torch.testing.assert_close(trained, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(served, expected, atol=1e-3, rtol=1e-3)
