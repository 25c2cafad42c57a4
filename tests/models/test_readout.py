import numpy as np
import pytest
import torch
from torch import Tensor

from models.nn.readout import LAGS, Axes, LaggedProducts

N, A = 6, 3


@pytest.fixture
def axes() -> Axes:
    torch.manual_seed(0)
    return Axes(torch.rand(N), torch.randn(N, A))


def matrices(products: LaggedProducts, frames: Tensor) -> dict[int, np.ndarray]:
    """The means of products (T, N) by lag; of lag 0 the upper triangle alone."""
    means = products(frames[None])[0].mean(0).numpy()
    upper = np.triu_indices(A)
    found = {0: np.zeros((A, A))}
    found[0][upper] = means[: len(upper[0])]
    for number, lag in enumerate(LAGS[1:]):
        begin = len(upper[0]) + number * A * A
        found[lag] = means[begin : begin + A * A].reshape(A, A)
    return found


def test_the_means_of_products_are_autocovariance_matrices(axes: Axes) -> None:
    frames = torch.randn(40, N)
    coordinates = ((frames - axes.center) @ axes.matrix).numpy()
    for lag, found in matrices(LaggedProducts(axes), frames).items():
        expected = coordinates[lag:].T @ coordinates[: 40 - lag] / 40
        np.testing.assert_allclose(
            found, np.triu(expected) if lag == 0 else expected, atol=1e-5, rtol=0
        )


def test_the_other_order_of_frames_gives_the_other_matrices(axes: Axes) -> None:
    frames = torch.randn(40, N)
    products = LaggedProducts(axes)
    forward, backward = matrices(products, frames), matrices(products, frames.flip(0))
    np.testing.assert_allclose(forward[0], backward[0], atol=1e-5)
    for lag in LAGS[1:]:
        np.testing.assert_allclose(forward[lag], backward[lag].T, atol=1e-5)
        assert np.abs(forward[lag] - backward[lag]).max() > 0.1


def test_what_comes_later_changes_no_frame(axes: Axes) -> None:
    frames = torch.randn(1, 20, N)
    products = LaggedProducts(axes)
    torch.testing.assert_close(products(frames[:, :9]), products(frames)[:, :9])


def test_a_clip_of_one_frame_has_its_own_products_alone(axes: Axes) -> None:
    found = matrices(LaggedProducts(axes), torch.randn(1, N))
    assert np.abs(found[0]).max() > 0
    assert all(np.abs(found[lag]).max() == 0 for lag in LAGS[1:])
