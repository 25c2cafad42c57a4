"""Front end and resampler beside torchaudio's, where it loads: a witness from outside."""

import pytest
import torch

from training.witness import WitnessError, log_mel_difference, resample_difference, torchaudio

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def _loads() -> None:
    try:
        torchaudio()
    except WitnessError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("device", DEVICES)
def test_the_log_mel_is_torchaudios(device: str) -> None:
    assert log_mel_difference(torch.device(device)) < 1e-3


@pytest.mark.parametrize("device", DEVICES)
def test_the_resampler_is_torchaudios(device: str) -> None:
    assert resample_difference(torch.device(device)) < 5e-3
