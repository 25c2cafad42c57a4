import numpy as np
import pytest

from models.audio import SAMPLE_RATE
from tests.signals import noise
from training.disturbances import CUT, DISTURBANCES, LEAST_SAMPLES, bandwidth, colour, gain

SOUND = 0.1 * noise(1.0)


def spectrum(samples: np.ndarray) -> np.ndarray:
    """In dB."""
    return 20 * np.log10(np.abs(np.fft.rfft(samples)) + 1e-9)


@pytest.mark.parametrize("name", DISTURBANCES)
@pytest.mark.parametrize("n_samples", [LEAST_SAMPLES, 16_000, 16_001])
def test_a_disturbed_sound_is_another_of_its_kind(name: str, n_samples: int) -> None:
    samples = 0.1 * noise(2.0)[:n_samples]
    before = samples.copy()
    for seed in range(20):
        made = DISTURBANCES[name](samples, np.random.default_rng(seed))
        assert (made.dtype, made.ndim) == (np.float32, 1)
        assert np.isfinite(made).all()
        assert np.abs(made).max() <= 1.1  # a codec rings a little
        least = round((1 - 2 * CUT) * n_samples) - 2 if name == "cut" else n_samples
        assert least <= len(made) <= n_samples
        again = DISTURBANCES[name](samples, np.random.default_rng(seed))
        np.testing.assert_array_equal(made, again)
    assert not np.array_equal(made, samples)
    np.testing.assert_array_equal(samples, before)


def test_a_lower_bandwidth_takes_the_upper_frequencies_alone() -> None:
    for seed in range(10):
        narrow = bandwidth(SOUND, np.random.default_rng(seed))
        difference = spectrum(narrow) - spectrum(SOUND)
        hz = np.linspace(0, SAMPLE_RATE / 2, len(difference))
        assert np.abs(difference[(hz > 100) & (hz < 2_000)]).mean() < 0.5
        assert difference[hz > 7_500].mean() < -40


def test_a_gain_is_one_factor_and_a_colour_one_curve() -> None:
    louder = gain(SOUND, np.random.default_rng(1))
    assert np.ptp(louder[SOUND != 0] / SOUND[SOUND != 0]) < 1e-5
    coloured = spectrum(colour(SOUND, np.random.default_rng(1))) - spectrum(SOUND)
    steps = np.abs(np.diff(coloured))
    assert np.ptp(coloured) > 1
    assert np.quantile(steps, 0.99) < 0.1
