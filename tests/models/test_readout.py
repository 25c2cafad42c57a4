import numpy as np
import pytest
import torch
from torch import Tensor

from models.nn.readout import LAGS, Axes, LaggedProducts

SIZES = {"convolution": (6, 3), "log-mel": (4, 2)}  # values of a frame, axes


@pytest.fixture
def axes() -> dict[str, Axes]:
    torch.manual_seed(0)
    return {layer: Axes(torch.rand(n), torch.randn(n, a)) for layer, (n, a) in SIZES.items()}


def layers(n_frames: int) -> dict[str, Tensor]:
    return {layer: torch.randn(n_frames, n) for layer, (n, _) in SIZES.items()}


def of_rows(products: LaggedProducts, frames: dict[str, Tensor]) -> Tensor:
    return products({layer: rows[None] for layer, rows in frames.items()})[0]


def matrices(
    products: LaggedProducts, frames: dict[str, Tensor]
) -> dict[tuple[str, int], np.ndarray]:
    """The means of products (T, P) by layer and lag; of lag 0 the upper triangle alone."""
    means = of_rows(products, frames).mean(0).numpy()
    found, begin = {}, 0
    for layer, (_, a) in SIZES.items():
        for lag in LAGS:
            places = np.triu_indices(a) if lag == 0 else np.divmod(np.arange(a * a), a)
            found[layer, lag] = np.zeros((a, a))
            found[layer, lag][places] = means[begin : begin + len(places[0])]
            begin += len(places[0])
    assert begin == len(means)
    return found


def test_the_means_of_products_are_autocovariance_matrices(axes: dict[str, Axes]) -> None:
    frames = layers(40)
    for (layer, lag), found in matrices(LaggedProducts(axes), frames).items():
        coordinates = ((frames[layer] - axes[layer].center) @ axes[layer].matrix).numpy()
        expected = coordinates[lag:].T @ coordinates[: 40 - lag] / 40
        np.testing.assert_allclose(
            found, np.triu(expected) if lag == 0 else expected, atol=1e-5, rtol=0
        )


def test_the_other_order_of_frames_gives_the_other_matrices(axes: dict[str, Axes]) -> None:
    frames = layers(40)
    products = LaggedProducts(axes)
    forward = matrices(products, frames)
    backward = matrices(products, {layer: rows.flip(0) for layer, rows in frames.items()})
    for (layer, lag), found in forward.items():
        if lag == 0:
            np.testing.assert_allclose(found, backward[layer, 0], atol=1e-5)
        else:
            np.testing.assert_allclose(found, backward[layer, lag].T, atol=1e-5)
            assert np.abs(found - backward[layer, lag]).max() > 0.1


def test_what_comes_later_changes_no_frame(axes: dict[str, Axes]) -> None:
    frames, products = layers(20), LaggedProducts(axes)
    before = of_rows(products, {layer: rows[:9] for layer, rows in frames.items()})
    torch.testing.assert_close(before, of_rows(products, frames)[:9])


def test_a_clip_of_one_frame_has_its_own_products_alone(axes: dict[str, Axes]) -> None:
    for (_, lag), found in matrices(LaggedProducts(axes), layers(1)).items():
        assert (np.abs(found).max() > 0) == (lag == 0)
